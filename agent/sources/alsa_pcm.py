"""The only module that talks to libasound: opening, reading, and what devices there are."""

import ctypes
import errno
import os
import re
import select
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.audio import SAMPLE_RATE_HZ
from agent.errors import ConfigError, DeviceUnavailable, SourceError
from agent.sources.framer import SAMPLE_BYTES, PcmFormat

PERIODS_PER_S = 50
"""Chunks of 20 ms."""
BUFFER_S = 1
IDLE_S = 0.01
"""Pause where a device claims to be readable and gives nothing."""

NO_MICROPHONES = frozenset(
    {"null", "jack", "lavrate", "oss", "samplerate", "speex", "speexrate", "upmix", "usbstream", "vdownmix"}
)
"""What ALSA's plug-in packages name as if they were devices."""

CARD = re.compile(r"^\s*(?P<index>\d+) \[(?P<id>[^\]]*?)\s*\]: .*? - (?P<name>.*)$", re.MULTILINE)
CAPTURE_PCM = re.compile(r"^(?P<card>\d+)-(?P<device>\d+): [^:]*: (?P<name>[^:]*?)\s*: .*\bcapture\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    """A microphone, as it can be named in the settings."""

    pcm: str
    """`plughw:CARD=Device,DEV=0`: by card id, which survives replugging, unlike the card's number."""
    description: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read gave."""

    data: bytes
    """Interleaved samples; empty if nothing came in time."""
    overrun: bool = False
    """Sound was lost before this."""


class AlsaPcm:
    """An open capture device. Used by one thread only, `close` included."""

    def __init__(self, device: str) -> None:
        """Open `device`.

        Raises:
            ConfigError: pyalsaaudio is not installed.
            DeviceUnavailable: there is no such device, or it is busy.
            SourceError: it delivers samples in a form that we do not understand.
        """
        self._name = device
        self._pcm, self.format = _open(device)
        self._poll = select.poll()
        for descriptor, events in self._pcm.polldescriptors():
            self._poll.register(descriptor, events)

    def read(self, timeout_s: float) -> Chunk:
        """Return what has been captured; an empty chunk if that is nothing within `timeout_s`.

        Raises:
            DeviceUnavailable: the device is gone or broken; only closing it and opening it again helps.
        """
        # pyalsaaudio's exceptions carry nothing but text, and what they say varies: any of them means "reopen".
        try:
            count, data = self._pcm.read()
            if not count:
                self._wait(timeout_s)
        except (_alsaaudio().ALSAAudioError, OSError) as error:
            raise DeviceUnavailable(f'the microphone "{self._name}" was lost ({_reason(error)})') from error
        if count == -errno.EPIPE:
            return Chunk(b"", overrun=True)
        if count < 0:
            raise DeviceUnavailable(f'the microphone "{self._name}" was lost ({os.strerror(-count)})')
        return Chunk(data)

    def close(self) -> None:
        """Release the device; idempotent."""
        self._pcm.close()

    def _wait(self, timeout_s: float) -> None:
        if self._poll.poll(timeout_s * 1_000):
            time.sleep(IDLE_S)


def capture_devices(proc: Path = Path("/proc/asound")) -> tuple[CaptureDevice, ...]:
    """Every capture device: the cards that the kernel lists, then the PCMs that libasound's configuration names."""
    named = _alsaaudio().pcms(_alsaaudio().PCM_CAPTURE)
    # With a colon they are the many forms of the same hardware (hw:, sysdefault:, dsnoop: …).
    by_name = [name for name in named if ":" not in name and name not in NO_MICROPHONES]
    return (*card_devices(proc), *(CaptureDevice(name, "named in ALSA's configuration") for name in by_name))


def card_devices(proc: Path) -> tuple[CaptureDevice, ...]:
    """The capture devices of the sound cards below `proc` (`/proc/asound`); none where there is no sound driver."""
    try:
        cards, pcms = (proc / "cards").read_text(), (proc / "pcm").read_text()
    except OSError:
        return ()
    by_index = {int(card["index"]): card for card in CARD.finditer(cards)}
    devices = []
    for pcm in CAPTURE_PCM.finditer(pcms):
        if card := by_index.get(int(pcm["card"])):
            name = f"plughw:CARD={card['id']},DEV={int(pcm['device'])}"
            devices.append(CaptureDevice(name, f"{card['name']}, {pcm['name']}"))
    return tuple(devices)


def _open(device: str) -> tuple[Any, PcmFormat]:
    """Open with 16 kHz mono, or else with what the hardware gives instead."""
    pcm, got = _open_as(device, PcmFormat(SAMPLE_RATE_HZ, 1, "S16_LE"))
    if got.rate_hz == SAMPLE_RATE_HZ:
        return pcm, got
    # Again, for the sake of a period and a buffer that fit the hardware's own rate.
    pcm.close()
    return _open_as(device, got)


def _open_as(device: str, wanted: PcmFormat) -> tuple[Any, PcmFormat]:
    alsa = _alsaaudio()
    try:
        pcm = alsa.PCM(
            alsa.PCM_CAPTURE,
            alsa.PCM_NONBLOCK,
            device=device,
            rate=wanted.rate_hz,
            channels=wanted.channels,
            format=getattr(alsa, f"PCM_FORMAT_{wanted.sample}"),
            periodsize=wanted.rate_hz // PERIODS_PER_S,
            periods=PERIODS_PER_S * BUFFER_S,
        )
    except alsa.ALSAAudioError as error:
        raise DeviceUnavailable(f'cannot open the microphone "{device}" ({_reason(error)}): {_choice()}') from error
    info = pcm.info()
    if info["format_name"] not in SAMPLE_BYTES:
        pcm.close()
        plug = device.replace("hw:", "plughw:", 1)
        raise SourceError(f'"{device}" delivers {info["format_name"]} samples: use "{plug}", which converts them')
    return pcm, PcmFormat(info["rate"], info["channels"], info["format_name"])


def _choice() -> str:
    """The remedy: what there is instead."""
    devices = capture_devices()
    if not devices:
        return "there is no microphone on this machine; plug one in (`edgescribe devices` lists them)"
    return f"set source.device to {' or '.join(device.pcm for device in devices)}"


def _reason(error: Exception) -> str:
    """`No such file or directory [plughw:CARD=Foo]` without the device, which we name ourselves."""
    return str(error).partition(" [")[0]


@cache
def _alsaaudio() -> ModuleType:
    try:
        import alsaaudio  # noqa: PLC0415 - an extra: it has to be compiled, and a wav source does without
    except ImportError as error:
        raise ConfigError(
            "a microphone needs pyalsaaudio, which is not installed: "
            "apt install libasound2-dev; pip install 'edgescribe[alsa]'"
        ) from error
    _silence_libasound()
    return alsaaudio  # type: ignore[no-any-return]  # it has no types


_KEPT: list[object] = []
"""What C still calls, and ctypes does not hold on to."""


def _silence_libasound() -> None:
    """Keep libasound from writing to standard error; what goes wrong reaches us as a return value anyway."""
    handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
    try:
        silent = handler(lambda *_: None)
        _KEPT.append(silent)
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(silent)
    except (OSError, AttributeError, MemoryError):
        # MemoryError: an older libffi under `MemoryDenyWriteExecute=yes`. Chatter is no reason not to listen.
        return
