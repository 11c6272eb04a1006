import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, SILENCE_DBFS, AudioFrame, Pcm16
from agent.messages import Message, PartialTranscript, State, Vad
from agent.terminal.publisher import LevelMeter, Recent
from tests.messages import NOON, info, transcript


def frame(pcm: Pcm16) -> AudioFrame:
    """A frame of these samples."""
    return AudioFrame(pcm, position=0, captured_ns=0)


def square(amplitude: int) -> AudioFrame:
    """A square wave: its root mean square is its amplitude."""
    return frame(np.tile(np.array([amplitude, -amplitude], np.int16), FRAME_SAMPLES // 2))


def test_levels_are_those_since_the_last_look() -> None:
    """Half of full scale is -6 dBFS; what was looked at is not counted again."""
    meter = LevelMeter()
    meter.hear(square(16_384), 0.2)
    loudness = meter.take()
    assert loudness == {"rms_dbfs": -6.0, "peak_dbfs": -6.0, "speech_prob": 0.2}
    meter.hear(square(1_638), 0.1)
    later = meter.take()
    assert later == {"rms_dbfs": -26.0, "peak_dbfs": -26.0, "speech_prob": 0.1}


def test_of_several_frames_the_mean_power_and_the_highest_peak_count() -> None:
    """A loud frame and a silent one: half the power, all of the peak."""
    meter = LevelMeter()
    meter.hear(square(16_384), 0.9)
    meter.hear(frame(np.zeros(FRAME_SAMPLES, np.int16)), 0.3)
    loudness = meter.take()
    assert loudness["rms_dbfs"] == pytest.approx(-9.0, abs=0.1)
    assert (loudness["peak_dbfs"], loudness["speech_prob"]) == (-6.0, 0.9)


def test_silence_is_quiet_and_nothing_is_nothing() -> None:
    """Digital silence has a level, no sound has none; the lowest sample there is does not overflow."""
    meter = LevelMeter()
    assert meter.take() == {}
    meter.hear(frame(np.zeros(FRAME_SAMPLES, np.int16)), 0.0)
    silent = meter.take()
    assert (silent["rms_dbfs"], silent["peak_dbfs"]) == (SILENCE_DBFS, SILENCE_DBFS)
    meter.hear(frame(np.full(FRAME_SAMPLES, -32_768, np.int16)), 0.0)
    loud = meter.take()
    assert loud["peak_dbfs"] == 0.0


def state(*, listening: bool) -> State:
    """Applied values, muted or not."""
    values = {"engine": "scripted", "model": "scripted", "language": "en", "vad_threshold": 0.5}
    return State.model_validate({"listening": listening, **values})


def partial(text: str) -> PartialTranscript:
    """Words while somebody still speaks."""
    return PartialTranscript(id="01JD", ts=NOON, duration_s=1.0, text=text, lang="en")


def told(*messages: Message) -> Recent:
    """What is remembered after these, a second apart."""
    recent = Recent()
    for second, message in enumerate(messages):
        recent = recent.after(message, float(second))
    return recent


def test_the_last_of_each_kind_counts() -> None:
    """With the moment at which it was said."""
    latest = told(info(), transcript(1, "one"), transcript(2, "two"))
    assert latest.transcript
    assert (latest.transcript.text, latest.said_s) == ("two", 2.0)


def test_somebody_speaks_from_the_first_on_to_off() -> None:
    """ON is repeated for subscribers that come late, and begins nothing anew."""
    assert told(Vad(state="ON"), Vad(state="ON")).speaking_since_s == 0.0
    assert told(Vad(state="ON"), Vad(state="OFF")).speaking_since_s is None


def test_words_in_between_are_those_of_this_utterance() -> None:
    """They go when the utterance has its words, and when the next one begins."""
    assert told(Vad(state="ON"), partial("turn")).partial == "turn"
    assert told(Vad(state="ON"), partial("turn"), transcript(1)).partial is None
    assert told(Vad(state="ON"), partial("turn"), Vad(state="OFF"), Vad(state="ON")).partial is None


def test_who_mutes_is_not_quoted() -> None:
    """What was said before is forgotten, and does not come back when the device listens again."""
    muted = (transcript(1), Vad(state="ON"), partial("secret"), state(listening=False))
    for messages in (muted, (*muted, state(listening=True))):
        latest = told(*messages)
        assert (latest.transcript, latest.partial, latest.speaking_since_s) == (None, None, None)
