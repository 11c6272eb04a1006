"""What is said on one connection: events in, answers out. No sockets, no clock.

    describe ─▶ info          transcribe, audio-start, audio-chunk …, audio-stop ─▶ transcript (or error)

The protocol: https://github.com/OHF-Voice/wyoming
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from agent import __version__
from agent.audio import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm16
from agent.errors import AgentError
from agent.sources.framer import Framer, PcmFormat

LONGEST_S: Final = 120.0
"""More sound than this in one request is refused: a command takes seconds."""
_RATES_HZ: Final = range(4_000, 192_001)
_CHANNELS: Final = range(1, 33)
_SAMPLE_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Offer:
    """What `describe` is answered with."""

    model: str
    languages: tuple[str, ...]
    """ISO 639-1 codes."""


class Conversation:
    """One connection. Every method is called from its thread.

    `offer` is asked anew each time, as the model may change; `listen` turns samples, shape (n,), 16 kHz, into words, an
    empty text if there are none.
    """

    def __init__(self, offer: Callable[[], Offer], listen: Callable[[Pcm16], str]) -> None:
        self._offer = offer
        self._listen = listen
        self._framer: Framer | None = None
        self._format: PcmFormat | None = None
        self._frames: list[Pcm16] = []
        self._heard = 0
        self._refusing = False
        """Whether the request under way was answered with an error, and the rest of it is passed over."""

    def answer(self, event: Event) -> Eventable | None:
        """The answer to `event`, None if it wants none. Unknown events are passed over, as the protocol demands."""
        try:
            return self._answer(event)
        except AgentError as error:
            self._refuse(event)
            return Error(str(error), code=type(error).__name__)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._refuse(event)
            return Error(f"{event.type}: {error}", code="invalid")

    def _answer(self, event: Event) -> Eventable | None:
        if Describe.is_type(event.type):
            return _info(self._offer())
        if Ping.is_type(event.type):
            return Pong(text=Ping.from_event(event).text)
        if AudioStart.is_type(event.type):
            self._forget()
            self._refusing = False
        elif self._refusing:
            return None
        elif AudioChunk.is_type(event.type):
            self._hear(AudioChunk.from_event(event))
        elif AudioStop.is_type(event.type):
            pcm = self._sound()
            self._forget()
            return Transcript(text=self._listen(pcm) if len(pcm) else "")
        return None

    def _hear(self, chunk: AudioChunk) -> None:
        form = _format_of(chunk)
        if self._framer is None or form != self._format:
            self._framer, self._format = Framer(form), form
        frames = [frame.pcm for frame in self._framer.push(chunk.audio, now_ns=0)]
        self._heard += FRAME_SAMPLES * len(frames)
        if self._heard > LONGEST_S * SAMPLE_RATE_HZ:
            msg = f"more than {LONGEST_S:.0f} s of sound in one request"
            raise ValueError(msg)
        self._frames += frames

    def _sound(self) -> Pcm16:
        """All that was heard; the last word may reach into a frame that was never filled."""
        if self._framer is None or self._format is None:
            return np.zeros(0, np.int16)
        tail = self._framer.push(bytes(self._format.bytes_per_s), now_ns=0)[:1]
        return np.concatenate([*self._frames, *(frame.pcm for frame in tail)])

    def _refuse(self, event: Event) -> None:
        """Nothing more of the request that `event` belongs to is wanted; with a stop it is over anyway."""
        self._forget()
        self._refusing = self._refusing or AudioChunk.is_type(event.type)

    def _forget(self) -> None:
        self._framer, self._format, self._frames, self._heard = None, None, [], 0


def _format_of(chunk: AudioChunk) -> PcmFormat:
    if chunk.width != _SAMPLE_BYTES or chunk.rate not in _RATES_HZ or chunk.channels not in _CHANNELS:
        msg = f"{chunk.rate} Hz, {chunk.channels} channels of {8 * chunk.width} bits: send 16 bits, 16000 Hz, 1 channel"
        raise ValueError(msg)
    return PcmFormat(chunk.rate, chunk.channels, "S16_LE")


def _info(offer: Offer) -> Info:
    us = Attribution(name="edgescribe", url="")
    model = AsrModel(
        name=offer.model,
        attribution=Attribution(name="OpenAI Whisper", url="https://github.com/openai/whisper"),
        installed=True,
        description=offer.model,
        version=None,
        languages=list(offer.languages),
    )
    program = AsrProgram(
        name="edgescribe",
        attribution=us,
        installed=True,
        description="Whisper on the device, in a window that follows the utterance",
        version=__version__,
        models=[model],
    )
    return Info(asr=[program])
