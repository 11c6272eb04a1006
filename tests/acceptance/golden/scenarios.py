"""The golden runs: what is done in each. The first line of a docstring goes into the golden file."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from tests.acceptance.golden.recorder import Recorder
from tests.support.agent_process import options, write_wav
from tests.support.bundled import RECORDING
from tests.support.clips import SAMPLE_RATE_HZ, SPEECH, clip, silence
from tests.support.mosquitto import free_port
from tests.support.virtual_microphone import MICROPHONE

Scenario = Callable[[Recorder], None]

CLIP: Final = SPEECH / "en_conf-waitforleader.flac"
SCRIPTED: Final = options({"engine__kind": "scripted", "engine__isolation": "thread", "engine__texts": ["one", "two"]})


def two_sentences(recorder: Recorder) -> Path:
    """Nine seconds: two sentences in a quiet room, with pauses around them."""
    parts = [silence(1.0), clip("en_conf-waitforleader"), silence(1.0), clip("en_pls-hold-while-try"), silence(1.0)]
    return write_wav(recorder.folder / "two-sentences.wav", np.concatenate(parts))


def quiet(recorder: Recorder, seconds: float = 300.0) -> Path:
    """A quiet room."""
    return write_wav(recorder.folder / "quiet.wav", silence(seconds))


def mqtt_5(recorder: Recorder) -> None:
    """Two sentences over MQTT 5."""
    recorder.run(source__path=two_sentences(recorder), mqtt__protocol="5", device__name="Kitchen")


def mqtt_3_1_1(recorder: Recorder) -> None:
    """Two sentences over MQTT 3.1.1, with the engine in a process of its own."""
    recorder.run(source__path=two_sentences(recorder), mqtt__protocol="3.1.1", engine__isolation="process")


def standard_output(recorder: Recorder) -> None:
    """Two sentences without a broker, as lines of JSON."""
    recorder.run(source__path=two_sentences(recorder), mqtt__enabled=False, stdout__enabled=True)


def paced(recorder: Recorder) -> None:
    """A sentence with a short pause, in real time, with partial results: they come before the transcript."""
    pcm = clip("en_conf-waitforleader")
    parts = [silence(1.0), pcm[:24_000], silence(0.45), pcm[24_000:], silence(1.5)]
    path = write_wav(recorder.folder / "paced.wav", np.concatenate(parts))
    with recorder.agent(one_list=True, source__path=path, source__pace="realtime", publish__partials=True):
        pass


def keywords_only(recorder: Recorder) -> None:
    """`privacy = keywords`: the names of keywords, and no text."""
    keywords = ["lamp=/turn (on|off)/", "heater", "never said"]
    recorder.run(source__path=two_sentences(recorder), publish__privacy="keywords", publish__keywords=keywords)


def keywords_beside_text(recorder: Recorder) -> None:
    """`privacy = full` with keywords: both."""
    recorder.run(source__path=two_sentences(recorder), publish__keywords=["light", "is=/HEATER\\s+is/"])


def privacy_off(recorder: Recorder) -> None:
    """`privacy = off`: no text, and no inference."""
    recorder.run(source__path=two_sentences(recorder), publish__privacy="off")


def empty_recording(recorder: Recorder) -> None:
    """A recording without a sample."""
    recorder.run(source__path=write_wav(recorder.folder / "empty.wav", np.zeros(0, np.int16)))


def noise(recorder: Recorder) -> None:
    """Loud noise and no speech."""
    recorder.run(source__path=write_wav(recorder.folder / "noise.wav", silence(3.0, level=2_000.0)))


def broken_recording(recorder: Recorder) -> None:
    """A recording that breaks off, one that is none, and one that is not there."""
    broken = recorder.folder / "broken.flac"
    content = bytearray(RECORDING.read_bytes())
    middle = len(content) // 4
    content[middle : middle + 20_000] = bytes(20_000)
    broken.write_bytes(content)
    recorder.run(source__path=broken, mqtt__enabled=False, stdout__enabled=True)
    text = recorder.folder / "text.wav"
    text.write_text("Dear diary,\n" * 100, encoding="utf-8")
    no_broker = options({"mqtt__enabled": False, "stdout__enabled": True, "source__kind": "wav"})
    for path in (text, recorder.folder / "missing.wav"):
        recorder.do("run", *SCRIPTED, *no_broker, "--set", f"source.path={path}")


def _outbox(recorder: Recorder, mode: str) -> None:
    settings = {"source__path": two_sentences(recorder), "mqtt__outbox__mode": mode}
    recorder.run(mqtt__port=free_port(), **settings)
    recorder.run(**settings)


def outbox_balanced(recorder: Recorder) -> None:
    """No broker at first, one at the next start: mode `balanced`."""
    _outbox(recorder, "balanced")


def outbox_strict(recorder: Recorder) -> None:
    """No broker at first, one at the next start: mode `strict`."""
    _outbox(recorder, "strict")


def outbox_memory(recorder: Recorder) -> None:
    """No broker at first, one at the next start: mode `memory`."""
    _outbox(recorder, "memory")


def commands(recorder: Recorder) -> None:
    """One command of each kind, obeyed."""
    with recorder.agent(source__path=quiet(recorder), source__pace="realtime", commands__groups=["ground"]) as agent:
        agent.await_birth()
        agent.ask("identify", {"id": "a1"})
        agent.ask("vad_threshold", {"id": "a2", "args": {"value": 0.6}})
        agent.ask("vad_threshold", "0.65")
        agent.ask("min_confidence", 0.25)
        agent.ask("initial_prompt", {"args": {"value": "heater"}})
        agent.ask("language", "en")
        agent.ask("listen", "OFF")
        agent.ask("listen", "ON")
        agent.ask("mute", {"args": {"value": "ON", "purge": True}})
        agent.ask("mute", "OFF")
        agent.ask("golden_utterance", {"id": "a3"})
        agent.ask("restart", {"id": "a4"})


def refusals(recorder: Recorder) -> None:
    """Commands that a device refuses, each for another reason."""
    allowed = ["identify", "vad_threshold", "mute", "model", "language", "replay", "calibrate"]
    with recorder.agent(source__path=quiet(recorder), source__pace="realtime", commands__allow=allowed) as agent:
        agent.await_birth()
        agent.ask("reboot")
        agent.ask("restart", {"id": "b1"})
        agent.ask("vad_threshold", "7")
        agent.ask("vad_threshold", {"args": {"value": "high"}})
        agent.ask("vad_threshold", {"args": {"valeu": 0.5}})
        agent.ask("vad_threshold", {"exp": 1, "args": {"value": 0.6}})
        agent.ask("vad_threshold", '{"args": ')
        agent.ask("mute", {"id": "x" * 65})
        agent.ask("model", "base-q8_0")
        agent.ask("model", "~x")
        agent.ask("language", "auto")
        agent.ask("replay", {"args": {"from": 1, "to": 2}})
        agent.ask("replay", {"args": {"from": 2, "to": 1}})
        agent.ask("calibrate")
        agent.process.stop()


def muted(recorder: Recorder) -> None:
    """A muted device stays mute at the next start, until it is told to listen."""
    settings: dict[str, Any] = {"source__path": quiet(recorder), "source__pace": "realtime"}
    for log, command, payload in (("listening to", "mute", ""), ("applied.json", "listen", "ON")):
        with recorder.agent(**settings) as agent:
            agent.await_birth(log)
            agent.ask(command, payload)
            agent.process.stop()


def replies_without_a_response_topic(recorder: Recorder) -> None:
    """Home Assistant's way: bare values, and answers on `reply`."""
    with recorder.agent(source__path=quiet(recorder), source__pace="realtime", commands__groups=["ground"]) as agent:
        agent.await_birth()
        for topic, payload in (
            ("pi-1/cmd/vad_threshold", "0.7"),
            ("pi-1/cmd/vad_threshold", "seven"),
            ("_group/ground/cmd/identify", json.dumps({"id": "c1"})),
            ("pi-1/cmd/identify", "PRESS"),
        ):
            count = len(agent.payloads("reply"))
            agent.commander.publish(f"edgescribe/v1/{topic}", payload)
            while len(agent.payloads("reply")) == count and agent.process.running:
                time.sleep(0.01)
        agent.process.stop()


def discovery(recorder: Recorder) -> None:
    """Discovery by one message, then off: what is announced and withdrawn."""
    _announce(recorder, "device")


def discovery_by_entity(recorder: Recorder) -> None:
    """Discovery by one message an entity, then off: what is announced and withdrawn."""
    _announce(recorder, "component")


def _announce(recorder: Recorder, mode: str) -> None:
    settings: dict[str, Any] = {
        "source__path": quiet(recorder),
        "source__pace": "realtime",
        "publish__keywords": ["lights"],
    }
    for one in (mode, "off"):
        with recorder.agent(discovery__mode=one, **settings) as agent:
            agent.await_birth()
            agent.await_quiet()
            agent.process.stop()


def renamed(recorder: Recorder) -> None:
    """A device that gets another id withdraws what it had retained."""
    path = write_wav(recorder.folder / "moment.wav", silence(0.5))
    recorder.run(source__path=path, device__id="former")
    recorder.run(source__path=path)


def last_will(recorder: Recorder) -> None:
    """An agent that is killed: the broker publishes its last will."""
    settings: dict[str, Any] = {"source__path": quiet(recorder), "source__pace": "realtime", "mqtt__protocol": "3.1.1"}
    with recorder.agent(kills=True, **settings) as agent:
        agent.await_birth()
        agent.process.kill()


def stopped(recorder: Recorder) -> None:
    """SIGTERM while an agent listens."""
    with recorder.agent(source__path=quiet(recorder), source__pace="realtime") as agent:
        agent.await_birth()
        agent.process.stop(signal.SIGTERM)


def reloaded(recorder: Recorder) -> None:
    """SIGHUP with a changed configuration file, then with a wrong one."""
    config = recorder.folder / "config.toml"
    with recorder.agent(source__path=quiet(recorder), source__pace="realtime") as agent:
        agent.await_birth()
        config.write_text('vad.threshold = 0.7\ndevice.name = "Attic"\n', encoding="utf-8")
        agent.process.stop(signal.SIGHUP)
        agent.process.await_log("reloaded")
        config.write_text("vad.threshold = 7\n", encoding="utf-8")
        agent.process.stop(signal.SIGHUP)
        agent.process.await_log("not reloaded")
        agent.await_quiet()
        agent.process.stop()


def transcribe(recorder: Recorder) -> None:
    """Several files as text: good ones, a missing one and one without speech."""
    still = write_wav(recorder.folder / "still.wav", silence(2.0))
    recorder.do("transcribe", CLIP, *SCRIPTED)
    recorder.do("transcribe", CLIP, "missing.wav", still, two_sentences(recorder), *SCRIPTED)
    recorder.do("transcribe", "-", *SCRIPTED, stdin=CLIP.read_bytes())


def transcribe_json(recorder: Recorder) -> None:
    """Several files as JSON, and one channel of two."""
    recorder.do("transcribe", "--json", CLIP, two_sentences(recorder), *SCRIPTED)
    stereo = recorder.folder / "stereo.wav"
    pcm = clip("en_conf-waitforleader")
    soundfile.write(stereo, np.stack([pcm, silence(len(pcm) / SAMPLE_RATE_HZ)], axis=1), SAMPLE_RATE_HZ)
    for channel in ("1", "2", "3"):
        recorder.do("transcribe", "--json", "--channel", channel, stereo, *SCRIPTED)


def config(recorder: Recorder) -> None:
    """What is in force, and where it came from: file, folder, environment, command line."""
    recorder.do("config")
    (recorder.folder / "config.toml").write_text('[mqtt]\nhost = "broker"\npassword = "s3cret"\n', encoding="utf-8")
    drop_ins = recorder.folder / "conf.d"
    drop_ins.mkdir()
    (drop_ins / "10-attic.toml").write_text('[device]\nname = "Attic"\n', encoding="utf-8")
    recorder.do("config", "--set", "engine.kind=scripted", EDGESCRIBE_VAD__THRESHOLD="0.6")


def check(recorder: Recorder) -> None:
    """A configuration that is fine, and faults of each kind."""
    fine = ["--set", "source.kind=wav", "--set", f"source.path={CLIP}"]
    recorder.do("check", *SCRIPTED, *fine)
    recorder.do("check", *fine)
    for setting in ("engine.thread=1", "engine.threads=many", "mqtt.enabled=false"):
        recorder.do("check", "--set", setting)
    recorder.do("check", EDGESCRIBE_ENGIN__THREADS="2")
    (recorder.folder / "config.toml").write_text("[mqtt]\nport = 99999\n", encoding="utf-8")
    recorder.do("check")


def models(recorder: Recorder) -> None:
    """The catalogue, and models that are unknown or not here."""
    recorder.do("models", "list")
    recorder.do("models", "verify", "tiny.en-q8_0")
    recorder.do("models", "pull", "tiny.em-q8_0")
    recorder.do("models", "remove", "base-q8_0")


def devices(recorder: Recorder) -> None:
    """The microphones of an ALSA configuration, and a configuration without any."""
    for name, text in (("one", MICROPHONE.format(fifo="/dev/null")), ("none", "")):
        configuration = recorder.folder / f"{name}.conf"
        configuration.write_text(text, encoding="utf-8")
        recorder.do("devices", ALSA_CONFIG_PATH=str(configuration))


def bad_input(recorder: Recorder) -> None:
    """Command lines that make no sense, and what cannot be done on this device."""
    recorder.do()
    recorder.do("trascribe")
    recorder.do("transcribe")
    recorder.do("run", "--fast")
    recorder.do("run", "--config", "/nowhere/config.toml")
    recorder.do("transcribe", CLIP, "--model", "tiny.em-q8_0")
    recorder.do("calibrate")
    recorder.do("top", "--once")
    recorder.do("--version")


SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.__name__: scenario
    for scenario in (
        mqtt_5,
        mqtt_3_1_1,
        standard_output,
        paced,
        keywords_only,
        keywords_beside_text,
        privacy_off,
        empty_recording,
        noise,
        broken_recording,
        outbox_balanced,
        outbox_strict,
        outbox_memory,
        commands,
        refusals,
        muted,
        replies_without_a_response_topic,
        discovery,
        discovery_by_entity,
        renamed,
        last_will,
        stopped,
        reloaded,
        transcribe,
        transcribe_json,
        config,
        check,
        models,
        devices,
        bad_input,
    )
}
