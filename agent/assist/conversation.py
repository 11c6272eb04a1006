"""What is said on one connection: events in, answers out. No sockets, no clock.

    describe ─▶ info          transcribe, audio-start, audio-chunk …, audio-stop ─▶ transcript (or error)

The protocol: https://github.com/OHF-Voice/wyoming
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from agent import __version__
from agent.audio import SAMPLE_RATE_HZ, Pcm16
from agent.errors import AgentError
from agent.sources.framer import PcmFormat, one_channel

LONGEST_S: Final = 120.0
"""More sound than this in one request is refused: a command takes seconds."""
_RATES_HZ: Final = range(4_000, 192_001)
_CHANNELS: Final = range(1, 33)
_SAMPLES: Final = {1: "U8", 2: "S16_LE", 3: "S24_3LE", 4: "S32_LE"}
"""ALSA's names, by the bytes of a sample. Like a WAV file, the protocol has 8 bits without a sign."""
_LONGEST_REASON: Final = 200
"""Characters of an error: it may quote what the client has sent."""


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
        self._sound = _Sound()
        self._refusing = False
        """Whether the request under way was answered with an error, and the rest of it is passed over."""

    def answer(self, event: Event) -> Eventable | None:
        """The answer to `event`, None if it wants none. Unknown events are passed over, as the protocol demands."""
        try:
            return self._answer(event)
        except AgentError as error:
            return self._refuse(event, str(error), type(error).__name__)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return self._refuse(event, f"{event.type}: {error}", "invalid")

    def _answer(self, event: Event) -> Eventable | None:
        if Describe.is_type(event.type):
            return _info(self._offer())
        if Ping.is_type(event.type):
            text = Ping.from_event(event).text
            (text or "").encode()  # a lone surrogate is refused here: it cannot be sent
            return Pong(text=text)
        if AudioStart.is_type(event.type):
            self._sound = _Sound()
            self._refusing = False
        elif self._refusing:
            return None
        elif AudioChunk.is_type(event.type):
            self._sound.add(AudioChunk.from_event(event))
        elif AudioStop.is_type(event.type):
            pcm, self._sound = self._sound.all(), _Sound()
            return Transcript(text=self._listen(pcm) if len(pcm) else "")
        return None

    def _refuse(self, event: Event, reason: str, code: str) -> Error:
        """Pass over the rest of the request that `event` belongs to; an end of the sound ends it anyway."""
        self._sound = _Sound()
        self._refusing = self._refusing or AudioChunk.is_type(event.type)
        return Error(reason[:_LONGEST_REASON].encode(errors="replace").decode(), code)


class _Sound:
    """The sound of one request, from chunks that may be cut anywhere, in the middle of a sample as well."""

    def __init__(self) -> None:
        self._heard = bytearray()
        """int16 samples, 16 kHz."""
        self._format: PcmFormat | None = None
        self._resampler: soxr.ResampleStream | None = None
        self._rest = b""

    def add(self, chunk: AudioChunk) -> None:
        """Take the first channel of `chunk`, behind what came before.

        Raises:
            ValueError: the format is not one of ours, or there is too much sound.
        """
        form = _format_of(chunk)
        if form != self._format:
            self._finish()
            self._format = form
            if form.rate_hz != SAMPLE_RATE_HZ:
                self._resampler = soxr.ResampleStream(form.rate_hz, SAMPLE_RATE_HZ, 1, dtype="int16")
        data = self._rest + chunk.audio
        whole = len(data) - len(data) % form.frame_bytes
        self._rest = data[whole:]
        pcm = one_channel(data[:whole], form)
        self._keep(self._resampler.resample_chunk(pcm) if self._resampler else pcm)

    def all(self) -> Pcm16:
        """Return all of it, shape (n,), 16 kHz."""
        self._finish()
        return np.frombuffer(bytes(self._heard), np.int16)

    def _finish(self) -> None:
        """Get what the resampler keeps back; half a sample at the end is none."""
        if self._resampler:
            self._keep(self._resampler.resample_chunk(np.zeros(0, np.int16), last=True))
        self._resampler, self._rest = None, b""

    def _keep(self, pcm: Pcm16) -> None:
        self._heard += pcm.tobytes()
        if len(self._heard) > LONGEST_S * SAMPLE_RATE_HZ * pcm.itemsize:
            msg = f"more than {LONGEST_S:.0f} s of sound in one request"
            raise ValueError(msg)


def _format_of(chunk: AudioChunk) -> PcmFormat:
    if chunk.width not in _SAMPLES or chunk.rate not in _RATES_HZ or chunk.channels not in _CHANNELS:
        msg = f"{chunk.rate} Hz, {chunk.channels} channels of {chunk.width} bytes: send 16000 Hz, 1 channel of 2 bytes"
        raise ValueError(msg)
    return PcmFormat(int(chunk.rate), int(chunk.channels), _SAMPLES[chunk.width])


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
