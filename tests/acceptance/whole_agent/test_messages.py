"""The whole agent in a process of its own: real sound, a real broker, a subscriber that knows nothing of the agent."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.whole_agent.conftest import (
    LOOPBACK,
    SENTENCES,
    StartAgent,
    checked,
    transcripts,
    two_sentences,
    wav,
)
from tests.support.bundled import RECORDING
from tests.support.clips import clip, silence
from tests.support.mosquitto import Mosquitto, program
from tests.support.receiver import Receiver, eventually
from tests.support.virtual_microphone import VirtualMicrophone
from tests.support.words import errors, words

MODEL = "tiny.en-q8_0"


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
    assert [message["text"] for message in received] == texts[: len(received)]
    assert [message["seq"] for message in received] == list(range(1, len(received) + 1))
    starts = [message["start"] for message in received]
    assert starts == sorted(starts)
    assert len({message["id"] for message in received}) == len(received)
    assert len({message["boot_id"] for message in received}) == 1

    assert receiver.payloads("status") == ["online", "offline"]
    assert receiver.messages[0].topic == "edgescribe/v1/pi-1/status"
    assert receiver.messages[-1].topic == "edgescribe/v1/pi-1/status"
    telemetry = [checked(message) for message in receiver.of("telemetry")]
    assert telemetry
    assert telemetry[-1]["mem"]["rss_mb"]
    assert telemetry[-1]["asr"]["dropped_s"] == 0.0
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
    assert [message["duration_s"] for message in paced] == [message["duration_s"] for message in flat_out]
    assert receiver.payloads("vad") == ["ON", "OFF", "ON", "OFF"]
    kinds = [message.topic.rpartition("/")[2] for message in receiver.messages]
    assert kinds.index("vad") < kinds.index("transcript")


def relative_starts_s(received: list[dict[str, Any]]) -> list[float]:
    """Seconds from the beginning of the first utterance to that of each."""
    starts = [datetime.fromisoformat(message["start"]) for message in received]
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
    said, heard = " ".join(SENTENCES), " ".join(message["text"] for message in received)
    assert errors(said, heard) <= 0.05 * len(words(said)), heard
    assert {message["model"] for message in received} == {MODEL}
    assert {message["lang"] for message in received} == {"en"}
    assert all(message["avg_logprob"] < 0 for message in received)
    assert all(message["rms_dbfs"] > -60 for message in received)


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

    heard = [json.loads(line) for line in payloads.splitlines()]
    assert [words(message["text"]) for message in heard] == [words(sentence) for sentence in SENTENCES[:2]]


def play_two_sentences(microphone: VirtualMicrophone, over: threading.Event) -> None:
    """Two sentences, then a quiet room for as long as somebody listens: a real microphone does not fall silent."""
    for name in ("en_conf-waitforleader", "en_pls-hold-while-try"):
        microphone.play(silence(1.5))
        microphone.play(clip(name))
    while not over.is_set():
        microphone.play(silence(0.5))


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


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("mode", ["device", "off"])
def test_a_renamed_device_leaves_nothing_behind_under_its_former_id(
    start_agent: StartAgent, broker: Mosquitto, tmp_path: Path, protocol: str, mode: str
) -> None:
    """The broker retains nothing of it; the topics of the new id stand as always."""
    settings = {"state_dir": tmp_path / "state", "mqtt__port": broker.port, "mqtt__protocol": protocol}
    for name in ("former", "present"):
        agent = start_agent(**wav(two_sentences(tmp_path)), **settings, device__id=name, discovery__mode=mode)
        assert agent.wait() == 0, agent.stderr
    with Receiver(broker.port, "#") as late:
        assert eventually(lambda: bool(late.of("health") and late.of("state")))
    assert {message.topic for message in late.messages if "former" in message.topic} == set()
    assert {message.topic for message in late.messages if message.topic.startswith("edgescribe/v1/present/")} == {
        f"edgescribe/v1/present/{kind}" for kind in ("status", "info", "state", "health")
    }
