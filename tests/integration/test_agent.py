"""The whole agent in a process of its own: real sound, a real broker, a subscriber that knows nothing of the agent."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from agent.demonstration import RECORDING, bundled_recording
from agent.presentation import score, words
from agent.wire import TranscriptMessage
from agent.wire.telemetry import TelemetryMessage
from tests.clips import clip, silence
from tests.integration.agent_process import AgentProcess, write_wav
from tests.integration.conftest import StartMosquitto
from tests.integration.mosquitto import Mosquitto, free_port, program
from tests.integration.receiver import Receiver, eventually
from tests.integration.virtual_microphone import VirtualMicrophone

SENTENCES = bundled_recording()
MODEL = "tiny.en-q8_0"
LOOPBACK = "127.0.0.1"


class StartAgent(Protocol):
    """Starts `edgescribe run` on a recording, with an engine that answers from a list; settings with `__` for dots."""

    def __call__(self, **settings: Any) -> AgentProcess:
        """Return the process."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Agents of the device `pi-1`, each in a folder of its own; killed at the end."""
    agents: list[AgentProcess] = []

    def start_one(*, variables: dict[str, str] | None = None, **settings: Any) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        defaults = {"device__id": "pi-1", "engine__kind": "scripted", "mqtt__host": LOOPBACK}
        agents.append(AgentProcess(folder, {**defaults, **settings}, **(variables or {})))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


@pytest.fixture
def broker(start_mosquitto: StartMosquitto) -> Mosquitto:
    """A real mosquitto that lets everybody in."""
    return start_mosquitto()


@pytest.fixture
def receiver(broker: Mosquitto) -> Iterator[Receiver]:
    """Somebody who was subscribed before the agent came."""
    with Receiver(broker.port) as subscriber:
        yield subscriber


def transcripts(receiver: Receiver) -> list[TranscriptMessage]:
    """The transcripts that have come in, held against the contract."""
    return [TranscriptMessage.model_validate_json(payload) for payload in receiver.payloads("transcript")]


def wav(path: Path | str, pace: str = "flat_out") -> dict[str, Any]:
    """Settings of a recording as the source."""
    return {"source__kind": "wav", "source__path": str(path), "source__pace": pace}


def two_sentences(folder: Path) -> Path:
    """Ten seconds: two sentences in a quiet room, with pauses around them."""
    quiet = silence(1.5)
    first, second = clip("en_conf-waitforleader"), clip("en_pls-hold-while-try")
    return write_wav(folder / "two.wav", np.concatenate([quiet, first, quiet, second, quiet]))


@pytest.mark.mosquitto
def test_a_recording_becomes_messages_in_order(start_agent: StartAgent, broker: Mosquitto, receiver: Receiver) -> None:
    """Read flat out: `online` first, every utterance in order and without gaps, telemetry, `offline` last, exit 0."""
    texts = [f"utterance {number}" for number in range(1, 30)]
    agent = start_agent(
        **wav(RECORDING),
        mqtt__port=broker.port,
        engine__texts=texts,
        engine__delay_s=0.3,  # so that it lasts long enough for telemetry
        telemetry__interval_s=1,
    )
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))

    received = transcripts(receiver)
    assert len(received) >= len(SENTENCES)
    assert [message.text for message in received] == texts[: len(received)]
    assert [message.seq for message in received] == list(range(1, len(received) + 1))
    starts = [message.start for message in received]
    assert starts == sorted(starts)
    assert len({message.id for message in received}) == len(received)
    assert len({message.boot_id for message in received}) == 1

    assert receiver.payloads("status") == ["online", "offline"]
    assert receiver.messages[0].topic == "edgescribe/v1/pi-1/status"
    assert receiver.messages[-1].topic == "edgescribe/v1/pi-1/status"
    telemetry = [TelemetryMessage.model_validate_json(payload) for payload in receiver.payloads("telemetry")]
    assert telemetry
    assert telemetry[-1].mem.rss_mb
    assert telemetry[-1].asr.dropped_s == 0.0
    assert "utterance" not in agent.stderr, "speech has no place in the log"


@pytest.mark.mosquitto
def test_what_is_retained_describes_the_device(start_agent: StartAgent, broker: Mosquitto) -> None:
    """Who subscribes later learns what the device is and that it is gone, and never what was said."""
    agent = start_agent(**wav(RECORDING), mqtt__port=broker.port, device__name="Kitchen")
    assert agent.wait() == 0, agent.stderr
    with Receiver(broker.port) as late:
        kinds = ("status", "info", "state", "health")
        assert eventually(lambda: all(late.of(kind) for kind in kinds))
        assert all(message.retained for message in late.messages)
        assert late.payloads("status") == ["offline"]
        info, state, health = (json.loads(late.payloads(kind)[0]) for kind in kinds[1:])
        assert (info["id"], info["name"], info["engine"], info["source"]) == (
            "pi-1",
            "Kitchen",
            "scripted",
            str(RECORDING),
        )
        assert (state["listening"], state["model"], state["language"]) == (True, "scripted", "en")
        assert (health["problem"], health["codes"]) == ("OFF", [])
        assert {message.topic.rpartition("/")[2] for message in late.messages} == set(kinds)


@pytest.mark.mosquitto
def test_pace_makes_no_difference_to_the_utterances(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """At the speed of speech the same utterances come out as flat out, and speaking is told as it begins and ends."""
    recording = two_sentences(tmp_path)
    flat = start_agent(**wav(recording), mqtt__port=broker.port)
    assert flat.wait() == 0, flat.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    flat_out = transcripts(receiver)
    receiver.messages.clear()

    began_s = time.monotonic()
    paced_agent = start_agent(**wav(recording, "realtime"), mqtt__port=broker.port)
    assert paced_agent.wait() == 0, paced_agent.stderr
    assert time.monotonic() - began_s > 9.0, "that was faster than speech"
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    paced = transcripts(receiver)

    assert len(flat_out) == len(paced) == 2
    assert relative_starts_s(paced) == pytest.approx(relative_starts_s(flat_out), abs=0.05)
    assert [message.duration_s for message in paced] == [message.duration_s for message in flat_out]
    assert receiver.payloads("vad") == ["ON", "OFF", "ON", "OFF"]
    kinds = [message.topic.rpartition("/")[2] for message in receiver.messages]
    assert kinds.index("vad") < kinds.index("transcript")


def relative_starts_s(received: list[TranscriptMessage]) -> list[float]:
    """Seconds from the beginning of the first utterance to that of each."""
    starts: list[datetime] = [message.start for message in received]
    return [(start - starts[0]).total_seconds() for start in starts]


@pytest.mark.mosquitto
@pytest.mark.weights
def test_the_words_arrive(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, pulled: Callable[[str], Path]
) -> None:
    """With real weights at least 95 % of the words of the bundled recording come out right at a subscriber."""
    agent = start_agent(**wav(RECORDING), mqtt__port=broker.port, engine__kind="whisper_cpp", **weights(pulled))
    assert agent.wait(250.0) == 0, agent.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    received = transcripts(receiver)
    result = score(" ".join(sentence.text for sentence in SENTENCES), " ".join(message.text for message in received))
    assert result.right >= 0.95 * result.expected, [message.text for message in received]
    assert {message.model for message in received} == {MODEL}
    assert {message.lang for message in received} == {"en"}
    assert all(message.avg_logprob is not None for message in received)
    assert all(message.rms_dbfs > -60 for message in received)


def weights(pulled: Callable[[str], Path]) -> dict[str, Any]:
    """Settings of the real model."""
    return {"engine__model": MODEL, "models__dir": str(pulled(MODEL).parent.parent)}


@pytest.mark.alsa
@pytest.mark.mosquitto
@pytest.mark.weights
def test_a_microphone_is_heard_by_mosquitto_sub(
    start_agent: StartAgent, broker: Mosquitto, tmp_path: Path, pulled: Callable[[str], Path]
) -> None:
    """Sound that comes in through libasound comes out as words in another program's hands."""
    microphone = VirtualMicrophone(tmp_path)
    agent = start_agent(
        source__kind="alsa",
        source__device=microphone.device,
        mqtt__port=broker.port,
        engine__kind="whisper_cpp",
        **weights(pulled),
        variables=microphone.environment,
    )
    agent.await_log("listening to microphone")
    arguments = ["-h", LOOPBACK, "-p", str(broker.port), "-t", "edgescribe/v1/+/transcript", "-C", "2", "-W", "200"]
    subscriber = subprocess.Popen([program("mosquitto_sub"), *arguments], stdout=subprocess.PIPE, text=True)
    over = threading.Event()
    player = threading.Thread(target=play_two_sentences, args=(microphone, over))
    player.start()
    try:
        payloads, _ = subscriber.communicate(timeout=240)
    finally:
        over.set()
        player.join()
        subscriber.kill()
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    microphone.unplug()

    heard = [TranscriptMessage.model_validate_json(line) for line in payloads.splitlines()]
    said = (SENTENCES[0].text, SENTENCES[1].text)
    assert [words(message.text) for message in heard] == [words(sentence) for sentence in said]


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


def play_two_sentences(microphone: VirtualMicrophone, over: threading.Event) -> None:
    """Two sentences, then a quiet room for as long as somebody listens: a real microphone does not fall silent."""
    for name in ("en_conf-waitforleader", "en_pls-hold-while-try"):
        microphone.play(silence(1.5))
        microphone.play(clip(name))
    while not over.is_set():
        microphone.play(silence(0.5))


@pytest.mark.mosquitto
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_being_said_when_it_is_stopped_is_not_lost(
    start_agent: StartAgent, broker: Mosquitto, receiver: Receiver, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal in the middle of a sentence: what was said so far is transcribed, then `offline`, exit 0, soon."""
    recording = write_wav(tmp_path / "long.wav", np.concatenate([silence(1.0), clip("en_dir-intro")]))
    agent = start_agent(
        **wav(recording, "realtime"), mqtt__port=broker.port, engine__texts=["until the signal"], engine__delay_s=1.0
    )
    assert eventually(lambda: "ON" in receiver.payloads("vad"), 60.0), agent.stderr
    time.sleep(0.7)
    said_before = len(transcripts(receiver))
    asked_s = time.monotonic()
    agent.stop(number)
    assert agent.wait() == 0, agent.stderr
    assert time.monotonic() - asked_s < 15.0
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    received = transcripts(receiver)
    assert len(received) == said_before + 1
    assert 0.5 < received[-1].duration_s < len(clip("en_dir-intro")) / 16_000
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
    late = [TranscriptMessage.model_validate_json(payload) for payload in receiver.payloads("transcript/backlog")]
    assert [(message.seq, message.late) for message in late] == [(1, True), (2, True)]
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
        assert [(message.seq, message.text) for message in transcripts(receiver)] == [(1, "one"), (2, "two")]


def test_standard_output_alone_takes_everything(start_agent: StartAgent) -> None:
    """Without a broker every message is a JSON line, the first of them what the device is."""
    agent = start_agent(**wav(RECORDING), mqtt__enabled=False, stdout__enabled=True)
    assert agent.wait() == 0, agent.stderr
    messages = [json.loads(line) for line in agent.stdout.splitlines()]
    assert all(set(message) == {"topic", "payload"} for message in messages)
    kinds = [message["topic"].removeprefix("edgescribe/v1/pi-1/") for message in messages]
    assert kinds[:3] == ["info", "state", "health"]
    said = [message["payload"]["seq"] for message, kind in zip(messages, kinds, strict=True) if kind == "transcript"]
    assert said == list(range(1, len(said) + 1))
    assert len(said) >= len(SENTENCES)
    speaking = [message["payload"] for message, kind in zip(messages, kinds, strict=True) if kind == "vad"]
    assert speaking == ["ON", "OFF"] * (len(speaking) // 2)
    assert speaking


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
