"""The protocol without sockets; `tests/acceptance/test_assist.py` has the real client."""

import numpy as np
import pytest
from numpy.typing import NDArray
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from agent.audio.frames import Pcm16
from agent.errors import EngineError
from agent.wyoming import LONGEST_S, Conversation, service_info


class Rig:
    """A conversation whose engine answers with how many samples it got."""

    def __init__(self) -> None:
        self.model = "tiny.en-q8_0"
        self.heard: list[Pcm16] = []
        self.conversation = Conversation(lambda: service_info(self.model, ["en"]), self.listen)

    def listen(self, pcm: Pcm16) -> str:
        """Keep it."""
        self.heard.append(pcm)
        return f"{len(pcm)} samples"

    def ask(self, *said: Eventable) -> list[Eventable]:
        """The answers, as far as there are any."""
        answers = [self.conversation.answer(one.event()) for one in said]
        return [answer for answer in answers if answer is not None]


def chunk(samples: int, rate: int = 16_000, channels: int = 1, width: int = 2) -> AudioChunk:
    """So much of a tone, the same on every channel."""
    tone = (8_000 * np.sin(np.arange(samples) * 2 * np.pi * 440 / rate)).astype("<i2")
    audio = np.repeat(tone, channels).tobytes() if width == 2 else bytes(samples * channels * width)
    return AudioChunk(rate, width, channels, audio)


def test_a_description_names_what_is_in_force() -> None:
    """Asked anew each time: the model may have been exchanged meanwhile."""
    rig = Rig()
    rig.model = "base-q8_0"
    (info,) = rig.ask(Describe())
    assert isinstance(info, Info)
    assert [model.name for program in info.asr for model in program.models] == ["base-q8_0"]
    assert info.asr[0].models[0].languages == ["en"]


def test_sound_becomes_one_transcript() -> None:
    """Between start and stop, in as many chunks as the other likes; not a sample of it is lost."""
    rig = Rig()
    answers = rig.ask(Transcribe(), AudioStart(16_000, 2, 1), chunk(1_000), chunk(2_000), chunk(333), AudioStop())
    assert len(answers) == 1
    assert isinstance(answers[0], Transcript)
    whole = np.concatenate([np.frombuffer(chunk(count).audio, "<i2") for count in (1_000, 2_000, 333)])
    assert np.array_equal(rig.heard[0][: len(whole)], whole)
    assert len(rig.heard[0]) - len(whole) < 512


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2), (8_000, 1), (16_000, 2)])
def test_other_rates_and_channels_are_converted(rate: int, channels: int) -> None:
    """A second is a second, and the tone keeps its pitch."""
    rig = Rig()
    rig.ask(AudioStart(rate, 2, channels), chunk(rate, rate, channels), AudioStop())
    (pcm,) = rig.heard
    assert len(pcm) == pytest.approx(16_000, abs=1_024)
    assert np.argmax(np.abs(np.fft.rfft(pcm))) * 16_000 / len(pcm) == pytest.approx(440, abs=10)


def packed(wave: NDArray[np.float64], width: int, channels: int) -> bytes:
    """A wave in [-1, 1) as samples of so many bytes, on the first of the channels; the others have noise."""
    noise = np.random.default_rng(1).uniform(-0.9, 0.9, (len(wave), channels))
    noise[:, 0] = wave
    if width == 1:
        return (np.round(noise * 127) + 128).astype(np.uint8).tobytes()
    whole = np.round(noise * (2 ** (8 * width - 1) - 1)).astype("<i4").tobytes()
    samples = np.frombuffer(whole, np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(samples[:, :width]).tobytes()


@pytest.mark.parametrize("size", [1, 51, 161, 1_023, 8_191])
@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(16_000, 2, 1), (16_000, 1, 1), (16_000, 3, 2), (16_000, 4, 1), (48_000, 2, 2), (8_000, 3, 1), (96_000, 4, 6)],
)
def test_a_sample_that_is_split_over_two_chunks_stays_whole(size: int, rate: int, width: int, channels: int) -> None:
    """Whatever the size of the chunks, what is heard is what was said, and as much of it."""
    seconds = 0.03 if size == 1 else 0.25
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    audio = packed(wave, width, channels)
    chunks = [AudioChunk(rate, width, channels, audio[at : at + size]) for at in range(0, len(audio), size)]
    rig = Rig()
    rig.ask(AudioStart(rate, width, channels), *chunks, AudioStop())
    expected = 16_384 * np.sin(2 * np.pi * 440 * np.arange(round(16_000 * seconds)) / 16_000)
    assert len(rig.heard[0]) == len(expected)
    middle = slice(100, -100)  # a resampler rings at both ends
    assert np.abs(rig.heard[0] - expected)[middle].max() < (200 if width > 1 else 400)


def test_another_format_in_the_middle_is_another_sound() -> None:
    """What was said before it is kept, and half a sample belongs to nothing."""
    rig = Rig()
    other = AudioChunk(8_000, 2, 1, bytes(1_600))
    rig.ask(AudioStart(16_000, 2, 1), chunk(1_600), AudioChunk(16_000, 2, 1, b"\x01"), other, AudioStop())
    assert len(rig.heard[0]) == 1_600 + 1_600


def test_no_sound_is_no_words() -> None:
    """And nobody bothers the engine with it."""
    rig = Rig()
    (answer,) = rig.ask(AudioStart(16_000, 2, 1), AudioStop())
    assert answer == Transcript(text="")
    assert rig.heard == []


def test_requests_on_one_connection_do_not_mix() -> None:
    """Each begins with an empty tape, whether or not the one before was ended."""
    rig = Rig()
    rig.ask(AudioStart(16_000, 2, 1), chunk(5_120), AudioStart(16_000, 2, 1), chunk(1_024), AudioStop())
    rig.ask(AudioStart(16_000, 2, 1), chunk(512), AudioStop())
    assert [len(pcm) for pcm in rig.heard] == [1_024, 512]


@pytest.mark.parametrize(
    "wrong",
    [
        chunk(100, width=5),
        chunk(100, rate=1),
        Event("audio-chunk", {"rate": "fast"}, b""),
        Event("audio-chunk", {}, b""),
        Event("audio-chunk", {"rate": 16_000, "width": 2, "channels": 0}, b"1234"),
        Event("audio-chunk", {"rate": 16_000, "width": [2], "channels": 1}, b"1234"),
        Event("audio-chunk", {"rate": "\ud800" * 10_000, "width": 2, "channels": 1}, b"1234"),
        Event("ping", {"text": "\ud800"}),
        Event("ping", {"text": {"a": 1}}),
    ],
)
def test_nonsense_gets_an_error_and_is_forgotten(wrong: AudioChunk | Event) -> None:
    """One answer that says what was wrong; the next request is served."""
    rig = Rig()
    error = rig.conversation.answer(wrong if isinstance(wrong, Event) else wrong.event())
    assert isinstance(error, Error)
    assert len(error.text.encode()) < 1_000
    assert isinstance(rig.ask(AudioStart(16_000, 2, 1), chunk(512), AudioStop())[0], Transcript)


def test_sound_without_end_is_refused() -> None:
    """Memory is bounded, whatever is sent."""
    rig = Rig()
    second = chunk(16_000)
    answers = rig.ask(*[second] * (round(LONGEST_S) + 2))
    assert [type(answer) for answer in answers] == [Error]


def test_the_rest_of_what_was_refused_is_no_request() -> None:
    """It was answered, with an error: what still comes of it is passed over until somebody begins anew."""
    rig = Rig()
    rest = rig.ask(AudioStart(16_000, 2, 1), *[chunk(16_000)] * (round(LONGEST_S) + 5), AudioStop(), chunk(512))
    assert [type(answer) for answer in rest] == [Error]
    assert rig.ask(chunk(100, width=5), chunk(512), AudioStop(), Ping(text="hello")) == [Pong(text="hello")]
    assert rig.heard == []
    assert rig.ask(AudioStart(16_000, 2, 1), chunk(512), AudioStop()) == [Transcript(text="512 samples")]


def test_an_engine_that_fails_is_said_so() -> None:
    """The other learns why there are no words."""

    def fail(_pcm: Pcm16) -> str:
        raise EngineError("the engine is behind")

    conversation = Conversation(lambda: service_info("m", ["en"]), fail)
    conversation.answer(chunk(512).event())
    assert conversation.answer(AudioStop().event()) == Error("the engine is behind", code="EngineError")


def test_what_is_not_known_is_passed_over() -> None:
    """The protocol grows; a ping is answered."""
    rig = Rig()
    assert rig.conversation.answer(Event("dance", {"style": "tango"})) is None
    assert rig.ask(Ping(text="hello")) == [Pong(text="hello")]
