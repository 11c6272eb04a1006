"""Serves speech to text by the Wyoming protocol, for Home Assistant's Assist.

    describe ─▶ info          transcribe, audio-start, audio-chunk …, audio-stop ─▶ transcript (or error)

Protocol: https://github.com/OHF-Voice/wyoming. Importing this module without the extra `assist` raises ConfigError.
"""

import contextlib
import io
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import soxr

from agent import __version__
from agent.asr.loading import create_segmenter
from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript, Verdict
from agent.audio.framer import PcmFormat, one_channel
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, frames_of
from agent.config.settings import AssistSettings, Settings
from agent.config.types import AUTO
from agent.errors import AgentError, ConfigError
from agent.install import extras
from agent.messages import State
from agent.models.languages import languages_of
from agent.segmenter import Segmenter, utterances_in
from agent.telemetry.tcp import Client, ClientError, TcpServer
from agent.vad import VoiceActivityDetector, create_detector
from agent.worker import Worker

try:
    from wyoming.asr import Transcript as Answer
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.error import Error
    from wyoming.event import Event, Eventable, write_event
    from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
    from wyoming.ping import Ping, Pong
except ImportError as missing:
    raise ConfigError(f"assist.enabled needs the package wyoming ({missing}): {extras.missing('assist')}") from missing

LONGEST_S: Final = 120.0
"""A request with more sound is refused: a command takes seconds."""
TIMEOUT_S: Final = 60.0
"""For an utterance to get the engine, which serves the microphone first."""
IDLE_S: Final = 120.0
"""A connection without a new request is closed after this time."""
EVENT_S: Final = 20.0
"""From the first byte of an event to its last."""
REQUEST_S: Final = 180.0
"""From the first byte of a request to its last: sound comes in real time, for two minutes at most."""
REQUEST_BYTES: Final = 100_000_000
"""Of one request: two minutes at 96 kHz, two channels of 32 bits, and some."""
LONGEST_LINE_BYTES: Final = 64 * 1024
LONGEST_DATA_BYTES: Final = 64 * 1024
LONGEST_PAYLOAD_BYTES: Final = 4_000_000
"""Two minutes of 16 kHz, one channel of 16 bits, in one event. Satellites send 64 ms."""
ANSWER_S: Final = 20.0
"""For the client to receive an answer."""
_RATES_HZ: Final = range(4_000, 192_001)
_CHANNELS: Final = range(1, 33)
_SAMPLES: Final = {1: "U8", 2: "S16_LE", 3: "S24_3LE", 4: "S32_LE"}
"""ALSA's names, by the bytes of a sample. 8-bit samples have no sign, as in a WAV file."""
_LONGEST_REASON: Final = 200
"""Characters of an error: it may quote the client."""


def open_assist(
    settings: Settings, transcriber: Transcriber, state: Callable[[], State], on_failure: Callable[[Worker], None]
) -> TcpServer:
    """Serve the words of `transcriber`. `state` returns the model and the language in force.

    Raises:
        ConfigError: the server cannot listen at the address.
    """

    def info() -> Info:
        now = state()
        codes = (now.language,) if now.language != AUTO else languages_of(now.model)
        return service_info(now.model, [code for code in codes if code != AUTO])

    def listen(pcm: Pcm16) -> str:
        return words_in(pcm, create_detector(settings.vad), create_segmenter(settings), transcriber.probe)

    return assist_server(settings.assist, lambda: Conversation(info, listen), on_failure)


def assist_server(
    settings: AssistSettings, converse: Callable[[], "Conversation"], on_failure: Callable[[Worker], None]
) -> TcpServer:
    """Serve until the server is closed. `converse` is called once for each connection, in its thread.

    Raises:
        ConfigError: the server cannot listen at the address.
    """
    return TcpServer("assist", settings.host, settings.port, lambda client: _serve(client, converse()), on_failure)


def service_info(model: str, languages: list[str]) -> Info:
    """Return the description of this service; `languages` are ISO 639-1 codes."""
    asr_model = AsrModel(
        name=model,
        attribution=Attribution(name="OpenAI Whisper", url="https://github.com/openai/whisper"),
        installed=True,
        description=model,
        version=None,
        languages=languages,
    )
    program = AsrProgram(
        name="edgescribe",
        attribution=Attribution(name="edgescribe", url=""),
        installed=True,
        description="Whisper on the device, in a window that follows the utterance",
        version=__version__,
        models=[asr_model],
    )
    return Info(asr=[program])


def words_in(
    pcm: Pcm16,
    detector: VoiceActivityDetector,
    segmenter: Segmenter,
    transcribe: Callable[[Utterance, float], Transcript],
) -> str:
    """Return the words in `pcm`, shape (n,), 16 kHz; an empty text if there are none.

    `transcribe` gets an utterance, and the seconds that it may wait for the engine.

    Raises:
        EngineError: the engine failed, or had no time.
    """
    utterances = list(utterances_in(frames_of([pcm]), detector, segmenter))
    transcripts = [transcribe(utterance, TIMEOUT_S) for utterance in utterances]
    return " ".join(one.text for one in transcripts if one.text and one.verdict is not Verdict.REJECTED)


class Conversation:
    """One connection. Its thread calls every method.

    `info` is called for each `describe`, as the model may change. `listen` turns samples, shape (n,), 16 kHz, into
    words; an empty text if there are none.
    """

    def __init__(self, info: Callable[[], Info], listen: Callable[[Pcm16], str]) -> None:
        self._info = info
        self._listen = listen
        self._sound = _Sound()
        self._refusing = False
        """Whether the present request was refused: the rest of it is ignored."""

    def answer(self, event: Event) -> Eventable | None:
        """Return the answer to `event`, None if it needs none. Unknown events are ignored, as the protocol demands."""
        try:
            return self._answer(event)
        except AgentError as error:
            return self._refuse(event, str(error), type(error).__name__)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return self._refuse(event, f"{event.type}: {error}", "invalid")

    def _answer(self, event: Event) -> Eventable | None:
        if Describe.is_type(event.type):
            return self._info()
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
            return Answer(text=self._listen(pcm) if len(pcm) else "")
        return None

    def _refuse(self, event: Event, reason: str, code: str) -> Error:
        """Return an error, and ignore the rest of the request. The end of the sound ends it anyway."""
        self._sound = _Sound()
        self._refusing = self._refusing or AudioChunk.is_type(event.type)
        return Error(reason[:_LONGEST_REASON].encode(errors="replace").decode(), code)


class _Sound:
    """The sound of one request. Its chunks may be cut anywhere, even inside a sample."""

    def __init__(self) -> None:
        self._heard = bytearray()
        """int16 samples, 16 kHz."""
        self._format: PcmFormat | None = None
        self._resampler: soxr.ResampleStream | None = None
        self._rest = b""

    def add(self, chunk: AudioChunk) -> None:
        """Append the first channel of `chunk`.

        Raises:
            ValueError: the format is not supported, or there is too much sound.
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
        """Get the rest out of the resampler, and drop half a sample."""
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


def _serve(client: Client, conversation: Conversation) -> None:
    """Answer the events of one client until it closes, or is silent for too long between two requests.

    A request ends with the next answer. Its limits hold for all of its events together.

    Raises:
        ClientError: the client is too slow, sends too much, or does not speak Wyoming.
        OSError: the client is gone, or does not receive an answer.
    """
    stream = io.BufferedReader(client)
    request_until_s: float | None = None
    while _has_more(client, stream, request_until_s):
        now_s = time.monotonic()
        request_until_s = request_until_s or now_s + REQUEST_S
        client.until_s = min(request_until_s, now_s + EVENT_S)
        event = read_event(stream)
        client.waiting_since_s = math.inf
        answer = conversation.answer(event)
        if answer is not None:
            request_until_s = None
            packed = io.BytesIO()
            write_event(answer.event(), packed)
            client.connection.settimeout(ANSWER_S)
            client.connection.sendall(packed.getvalue())
        client.waiting_since_s = time.monotonic()


def _has_more(client: Client, stream: "io.BufferedReader[Client]", request_until_s: float | None) -> bool:
    """Wait for the next event; return False when the connection is over."""
    if request_until_s is not None:
        client.until_s = request_until_s
        return bool(stream.peek(1))
    client.until_s, client.left_bytes = time.monotonic() + IDLE_S, REQUEST_BYTES
    with contextlib.suppress(ClientError):  # silence between two requests is allowed
        return bool(stream.peek(1))
    return False


def read_event(stream: "io.BufferedReader[Client]") -> Event:
    """Read one event: a line of JSON, then the bytes of JSON and of payload that the line announces.

    The `wyoming` package would read any announced length, and returns None both for nonsense and at the end.

    Raises:
        ClientError: it is no event, or too long.
        ValueError, RecursionError: the JSON cannot be parsed.
    """
    line = stream.readline(LONGEST_LINE_BYTES)
    head = json.loads(line) if line.endswith(b"\n") else None
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        raise ClientError("no Wyoming event")
    more = _take(stream, head.get("data_length"), LONGEST_DATA_BYTES)
    data = {**_object(head.get("data")), **_object(json.loads(more) if more else None)}
    return Event(head["type"], data, _take(stream, head.get("payload_length"), LONGEST_PAYLOAD_BYTES))


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ClientError("the data of an event are no JSON object")
    return value


def _take(stream: "io.BufferedReader[Client]", size: Any, limit: int) -> bytes | None:
    """Read a part of `size` bytes; return None if the header announces none."""
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= limit:
        raise ClientError(f"a part of {size} bytes, where {limit} are allowed")
    part = stream.read(size)
    if len(part) < size:
        raise ConnectionResetError("closed in the middle of an event")
    return part
