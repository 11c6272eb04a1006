"""The whole agent where something is missing, late or breaks off: what it waits for, says, and does not lose."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.acceptance.whole_agent.conftest import LOOPBACK, StartAgent, transcripts, two_sentences, wav
from tests.support.agent_process import write_wav
from tests.support.another_boot import in_another_boot
from tests.support.bundled import RECORDING
from tests.support.clips import clip, silence
from tests.support.endurance import chatter
from tests.support.mosquitto import Mosquitto, StartMosquitto, free_port
from tests.support.receiver import Receiver, eventually
from tests.support.virtual_microphone import VirtualMicrophone


@pytest.mark.alsa
@pytest.mark.mosquitto
def test_a_missing_microphone_is_waited_for_and_told(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """A service whose microphone is absent stays up, says so in `health`, and still ends in good order."""
    microphone = VirtualMicrophone(tmp_path)
    agent = start_agent(
        source__kind="alsa",
        source__device="plughw:CARD=Absent",
        source__when_missing="wait",
        mqtt__port=broker.port,
        variables=microphone.environment,
    )
    assert eventually(lambda: "mic_absent" in "".join(receiver.payloads("health")), 60.0), agent.stderr
    assert json.loads(receiver.payloads("health")[-1]) == {"v": 1, "problem": "ON", "codes": ["mic_absent"]}
    assert agent.running
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))


@pytest.mark.mosquitto
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_being_said_when_it_is_stopped_is_not_lost(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal in the middle of a sentence: what was said so far is transcribed, then `offline`, exit 0."""
    recording = write_wav(tmp_path / "long.wav", np.concatenate([silence(1.0), clip("en_dir-intro")]))
    agent = start_agent(
        **wav(recording, "realtime"), mqtt__port=broker.port, engine__texts=["until the signal"], engine__delay_s=1.0
    )
    assert eventually(lambda: "ON" in receiver.payloads("vad"), 60.0), agent.stderr
    time.sleep(0.7)
    said_before = len(transcripts(receiver))
    agent.stop(number)
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    received = transcripts(receiver)
    assert len(received) == said_before + 1
    assert 0.5 < received[-1]["duration_s"] < len(clip("en_dir-intro")) / 16_000
    assert receiver.payloads("status") == ["online", "offline"]
    assert receiver.payloads("vad")[-1] == "OFF"
    assert "Traceback" not in agent.stderr


@pytest.mark.mosquitto
def test_a_stage_that_hangs_is_told(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """Not to systemd only, which is not there everywhere."""
    word = clip("en_conf-waitforleader")[:16_000]
    recording = write_wav(tmp_path / "word.wav", np.concatenate([silence(1.0), word, silence(300.0)]))
    engine = {"engine__isolation": "thread", "engine__delay_s": 300.0, "engine__budget_s": 0.1}
    agent = start_agent(**wav(recording, "realtime"), **engine, mqtt__port=broker.port)
    assert eventually(lambda: "stalled" in "".join(receiver.payloads("health")), 60.0), agent.stderr
    assert agent.running


@pytest.mark.mosquitto
@pytest.mark.slow
def test_what_there_is_no_time_for_when_it_is_stopped_is_told_by_the_next_start(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """An engine that is far behind: after 20 s the agent ends all the same, and what waited waits on disk."""
    sentence = np.concatenate([silence(1.5), clip("en_pls-hold-while-try")])
    recording = write_wav(tmp_path / "twice.wav", np.concatenate([sentence, sentence, silence(300.0)]))
    both = {"state_dir": tmp_path / "state", "mqtt__port": broker.port}
    behind = start_agent(**wav(recording, "realtime"), **both, engine__delay_s=90.0, engine__isolation="thread")
    assert eventually(lambda: receiver.payloads("vad").count("OFF") == 2, 60.0), behind.stderr
    behind.stop()
    assert behind.wait() == 1, behind.stderr
    assert "transcribe did not stop within 20 s" in behind.stderr
    assert transcripts(receiver) == []
    quiet = write_wav(tmp_path / "quiet.wav", silence(300.0))
    agent = start_agent(**wav(quiet, "realtime"), **both)
    assert eventually(lambda: len(receiver.payloads("transcript/backlog")) == 2, 120.0), agent.stderr
    late = transcripts(receiver, "transcript/backlog")
    assert [(message["seq"], message["late"]) for message in late] == [(1, True), (2, True)]
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_a_recording_without_a_broker_is_an_error(start_agent: StartAgent) -> None:
    """Words that nobody got are no success: exit 69, one line that says how many messages and which broker."""
    port = free_port()
    agent = start_agent(**wav(RECORDING), mqtt__port=port)
    assert agent.wait() == 69, agent.stderr
    lines = agent.stderr.splitlines()
    assert [line for line in lines if line.startswith("edgescribe: ")] == lines[-1:]
    assert "could not be delivered" in lines[-1]
    assert f"{LOOPBACK}:{port}" in lines[-1]
    assert "Traceback" not in agent.stderr


@pytest.mark.mosquitto
def test_the_end_of_a_recording_waits_for_a_backlog_that_goes_slowly(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """What an earlier boot left goes five a second, after up to half a minute: the agent ends when all has arrived."""
    left = {"state_dir": tmp_path / "state", "mqtt__outbox__mode": "strict"}
    before = start_agent(
        **wav(chatter(tmp_path / "chatter.wav", 20)), **left, mqtt__port=free_port(), under=in_another_boot(tmp_path)
    )
    assert before.wait() == 69, before.stderr
    agent = start_agent(**wav(RECORDING), **left, mqtt__port=broker.port)
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: len(receiver.payloads("transcript/backlog")) == 20)


@pytest.mark.mosquitto
def test_a_broker_may_come_later(start_agent: StartAgent, start_mosquitto: StartMosquitto, tmp_path: Path) -> None:
    """What was said before there was a broker arrives when there is one, in order."""
    late = start_mosquitto(start=False)
    agent = start_agent(
        **wav(two_sentences(tmp_path), "realtime"), mqtt__port=late.port, engine__texts=["one", "two", "three"]
    )
    agent.await_log("after the last word")
    late.start()
    with Receiver(late.port) as receiver:
        assert agent.wait() == 0, agent.stderr
        assert eventually(lambda: "offline" in receiver.payloads("status"))
        assert [(message["seq"], message["text"]) for message in transcripts(receiver)] == [(1, "one"), (2, "two")]


def test_sound_that_breaks_off_ends_with_a_reason(start_agent: StartAgent, tmp_path: Path) -> None:
    """A recording that turns out damaged ends the agent with 65 and one line; what was heard before is not lost."""
    damaged = tmp_path / "damaged.flac"
    content = bytearray(RECORDING.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    damaged.write_bytes(content)
    agent = start_agent(**wav(damaged), mqtt__enabled=False, stdout__enabled=True)
    assert agent.wait() == 65, agent.stderr
    lines = agent.stderr.splitlines()
    assert [line for line in lines if line.startswith("edgescribe: ")] == lines[-1:]
    assert str(damaged) in lines[-1]
    assert "Traceback" not in agent.stderr
    assert '/transcript"' in agent.stdout


@pytest.mark.mosquitto
@pytest.mark.parametrize("content", [b'{"next": Infinity, "v": Infinity}', 100_000 * b"[", bytes(range(256))])
def test_a_state_folder_full_of_rubbish_does_not_end_the_agent(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path, content: bytes
) -> None:
    """Every sentence arrives, `health` names the damage, and the agent exits with 0."""
    state = tmp_path / "state"
    (state / "spool").mkdir(parents=True)
    names = ("sequence.json", "applied.json", "discovery.json", "calibration.json", "outbox.db")
    for name in (*names, "spool/01JD0000000000000000000000.npz", "spool/\udcff.npz"):
        (state / name).write_bytes(content)
    agent = start_agent(**wav(two_sentences(tmp_path)), mqtt__port=broker.port, state_dir=state)
    assert agent.wait() == 0, agent.stderr
    assert [message["seq"] for message in transcripts(receiver)] == [1, 2]
    assert any("outbox_corrupt" in payload for payload in receiver.payloads("health"))
    assert "Traceback" not in agent.stderr


@pytest.mark.mosquitto
def test_a_state_folder_that_is_deleted_under_the_agent_is_told_and_made_anew(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """Words go on, `health` names the deletion, and the agent writes its files again."""
    state = tmp_path / "state"
    recording = write_wav(tmp_path / "long.wav", np.concatenate([silence(1.0), clip("en_dir-intro"), silence(30.0)]))
    agent = start_agent(**wav(recording, "realtime"), mqtt__port=broker.port, state_dir=state)
    assert eventually(lambda: (state / "discovery.json").exists() and receiver.payloads("status") == ["online"], 60.0)
    shutil.rmtree(state)
    assert eventually(lambda: "outbox_deleted" in "".join(receiver.payloads("health")), 60.0), agent.stderr
    assert eventually(lambda: bool(transcripts(receiver)), 60.0), agent.stderr
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    assert {path.name for path in state.iterdir()} >= {"outbox.db", "sequence.json", "discovery.json"}


@pytest.mark.mosquitto
def test_a_commit_that_the_device_refuses_is_told(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """What `edgescribe-pull` has left is in `health` for as long as it lies there."""
    said = tmp_path / "machine/var/lib/edgescribe-pull.health"
    said.parent.mkdir(parents=True)
    said.write_text("pull_untrusted\n", encoding="utf-8")
    recording = write_wav(tmp_path / "long.wav", silence(60.0))
    agent = start_agent(**wav(recording, "realtime"), mqtt__port=broker.port, telemetry__host_root=tmp_path / "machine")
    assert eventually(lambda: "pull_untrusted" in "".join(receiver.payloads("health")), 60.0), agent.stderr
    said.unlink()
    assert eventually(lambda: '"OFF"' in receiver.payloads("health")[-1], 60.0)
    agent.stop()
    assert agent.wait() == 0, agent.stderr
