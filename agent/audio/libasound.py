"""Opens, reads and lists microphones, by libasound through ctypes.

Each call here lets other threads run while it waits, `snd_pcm_open` too. pyalsaaudio does not: a sound server that
hangs during an open would stop the whole process (docs/decisions/0011-libasound-by-ctypes.md). Names and numbers are
those of alsa/pcm.h. Pointers are always ctypes objects, and all other arguments fit into an int.
"""

import ctypes
import errno
import itertools
import logging
import re
import time
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from agent.audio.framer import PcmFormat
from agent.errors import ConfigError, DeviceBusy, DeviceUnavailable, SourceError

log = logging.getLogger(__name__)

SONAME: Final = "libasound.so.2"
FORMATS: Final = {"S16_LE": 2, "S32_LE": 10, "S24_3LE": 32, "S24_LE": 6}
"""Supported sample formats with their numbers, the preferred ones first."""
RATES_HZ: Final = (16_000, 48_000, 32_000, 96_000, 44_100, 192_000, 22_050)
"""The pipeline's rate, then its multiples, then others that are not below it."""
PERIODS_PER_S: Final = 50
"""Chunks of 20 ms."""
BUFFER_S: Final = 1.0
IDLE_S: Final = 0.01
"""Pause if a device claims to be readable and gives no data."""

CHOOSE: Final = "set source.device to"
"""The start of a remedy that names another microphone; a command with an option for it replaces these words."""
NO_MICROPHONES: Final = frozenset(
    {"null", "jack", "lavrate", "oss", "samplerate", "speex", "speexrate", "upmix", "usbstream", "vdownmix"}
)
"""Names in the configuration of ALSA's plug-in packages that are no devices."""
CARD: Final = re.compile(r"^\s*(?P<index>\d+) \[(?P<id>[^\]]*?)\s*\]: .*? - (?P<name>.*)$", re.MULTILINE)
CAPTURE_PCM: Final = re.compile(
    r"^(?P<card>\d+)-(?P<device>\d+): [^:]*: (?P<name>[^:]*?)\s*: .*\bcapture\b", re.MULTILINE
)

_CAPTURE: Final = 1
_NONBLOCK, _NO_AUTO_CHANNELS = 0x1, 0x20000
_INTERLEAVED: Final = 3


class AlsaError(Exception):
    """A call of libasound failed; never leaves this module."""

    def __init__(self, code: int) -> None:
        super().__init__(_library().snd_strerror(code).decode(errors="replace"))
        self.number = -code
        """A number of `errno`."""


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    """A microphone, by a name for the settings."""

    pcm: str
    """`plughw:CARD=Device,DEV=0`: replugging changes a card's number, but not its id."""
    description: str


class AlsaPcm:
    """An open capture device. Used by one thread only, `close` included.

    Asks for the hardware's own rate and channels. So the caller can pick a channel and convert the rate well;
    libasound's own converter folds all sound above 8 kHz into speech. libasound converts only if the device has no
    supported format.
    """

    def __init__(self, device: str, channel: int = 1) -> None:
        """Open `device`, with its n-th channel.

        Raises:
            ConfigError: there is no libasound.
            DeviceBusy: another program has it open.
            DeviceUnavailable: there is no such device.
            SourceError: it has fewer channels, or no format that is supported or can be converted.
        """
        self._name = device
        self._handle = c_void_p()
        try:
            self._open(device, channel, converted=False)
        except AlsaError as error:
            if error.number == errno.EBUSY:
                raise DeviceBusy(
                    f'something else has the microphone "{device}" open ({error}): '
                    "see what (`sudo fuser -v /dev/snd/*`)"
                ) from error
            if error.number != errno.EINVAL:
                raise DeviceUnavailable(f'cannot open the microphone "{device}" ({error}): {_choice()}') from error
            self._open_converted(device, channel)

    def _open_converted(self, device: str, channel: int) -> None:
        """Let libasound convert the rate and the format, but not the channels: it would invent missing ones."""
        try:
            self._open(_plugged(device), channel, converted=True)
        except AlsaError as error:
            raise SourceError(
                f'the microphone "{device}" has no usable format ({error}): '
                f"see what it can do (`arecord -D {device} --dump-hw-params`), and whether it has a channel {channel}"
            ) from error
        log.info(f'libasound converts the format of the microphone "{device}"')

    def _open(self, device: str, channel: int, *, converted: bool) -> None:
        """Raise AlsaError if the device cannot be opened; with EINVAL if it does not support this configuration."""
        self._lib = _library()
        mode = _NONBLOCK | _NO_AUTO_CHANNELS
        _check(self._lib.snd_pcm_open(byref(self._handle), device.encode(), _CAPTURE, mode))
        params = c_void_p()
        try:
            _check(self._lib.snd_pcm_hw_params_malloc(byref(params)))
            self._configure(params, channel, converted=converted)
        except AlsaError:
            self.close()
            raise
        finally:
            self._lib.snd_pcm_hw_params_free(params)

    def _configure(self, params: c_void_p, channel: int, *, converted: bool) -> None:
        lib, pcm = self._lib, self._handle
        _check(lib.snd_pcm_hw_params_any(pcm, params))
        _check(lib.snd_pcm_hw_params_set_rate_resample(pcm, params, int(converted)))
        _check(lib.snd_pcm_hw_params_set_access(pcm, params, _INTERLEAVED))
        sample = next(
            (name for name, code in FORMATS.items() if not lib.snd_pcm_hw_params_set_format(pcm, params, code)), None
        )
        if sample is None:
            raise AlsaError(-errno.EINVAL)
        channels = c_uint(channel)
        _check(lib.snd_pcm_hw_params_set_channels_min(pcm, params, byref(channels)))
        _check(lib.snd_pcm_hw_params_set_channels_first(pcm, params, byref(channels)))
        possible = (each for each in RATES_HZ if not lib.snd_pcm_hw_params_test_rate(pcm, params, each, 0))
        rate, up_or_down = c_uint(next(possible, RATES_HZ[0])), c_int(0)
        _check(lib.snd_pcm_hw_params_set_rate_near(pcm, params, byref(rate), byref(up_or_down)))
        period, buffer = c_ulong(rate.value // PERIODS_PER_S), c_ulong(round(rate.value * BUFFER_S))
        _check(lib.snd_pcm_hw_params_set_period_size_near(pcm, params, byref(period), byref(c_int(0))))
        _check(lib.snd_pcm_hw_params_set_buffer_size_near(pcm, params, byref(buffer)))
        _check(lib.snd_pcm_hw_params(pcm, params))
        self.format = PcmFormat(rate.value, channels.value, sample)
        self._period = period.value
        self._buffer = ctypes.create_string_buffer(self._period * self.format.frame_bytes)

    def read(self, timeout_s: float) -> bytes | None:
        """Return captured samples, interleaved; empty if none came within `timeout_s`; None after an overrun.

        Raises:
            DeviceUnavailable: the device is gone or broken; only closing it and opening it again helps.
        """
        count = int(self._lib.snd_pcm_readi(self._handle, self._buffer, self._period))
        if count == -errno.EPIPE and (count := int(self._lib.snd_pcm_prepare(self._handle))) >= 0:
            return None
        if count < 0 and count != -errno.EAGAIN:
            raise DeviceUnavailable(f'the microphone "{self._name}" was lost ({AlsaError(count)})')
        if count <= 0:
            if self._lib.snd_pcm_wait(self._handle, round(timeout_s * 1_000)):
                time.sleep(IDLE_S)
            return b""
        return self._buffer.raw[: count * self.format.frame_bytes]

    def close(self) -> None:
        """Release the device; idempotent."""
        if self._handle:
            self._lib.snd_pcm_close(self._handle)
            self._handle = c_void_p()


def capture_devices(proc: Path = Path("/proc/asound")) -> tuple[CaptureDevice, ...]:
    """Return each capture device: the cards that the kernel lists, then the PCMs of libasound's configuration."""
    # Names with a colon are other forms of the same hardware (hw:, sysdefault:, dsnoop: …).
    by_name = [name for name in _capture_names() if ":" not in name and name not in NO_MICROPHONES]
    return (*card_devices(proc), *(CaptureDevice(name, "named in ALSA's configuration") for name in by_name))


def card_devices(proc: Path) -> tuple[CaptureDevice, ...]:
    """Return the capture devices of the sound cards below `proc` (`/proc/asound`); none without a sound driver."""
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


def _choice() -> str:
    """Return the remedy: the other microphones."""
    devices = capture_devices()
    if not devices:
        return "there is no microphone on this machine; plug one in (`edgescribe devices` lists them)"
    return f"{CHOOSE} {' or '.join(device.pcm for device in devices)}"


def _plugged(device: str) -> str:
    """Return the name of the same device behind libasound's converter."""
    if device.startswith("hw:"):
        return f"plug{device}"
    return device if device.startswith("plug") else f"plug:'{device}'"


def _capture_names() -> Iterator[str]:
    """Yield each PCM that libasound's configuration names for capture."""
    lib, hints = _library(), POINTER(c_void_p)()
    if lib.snd_device_name_hint(-1, b"pcm", byref(hints)):
        return
    try:
        for hint in itertools.takewhile(bool, map(hints.__getitem__, itertools.count())):
            if _hint(hint, b"IOID") in ("", "Input"):  # without an IOID it does both
                yield _hint(hint, b"NAME")
    finally:
        lib.snd_device_name_free_hint(hints)


def _hint(hint: int, key: bytes) -> str:
    found = _library().snd_device_name_get_hint(hint, key)
    if not found:
        return ""
    try:
        return ctypes.string_at(found).decode(errors="replace")
    finally:
        ctypes.CDLL(None).free(c_void_p(found))


def installed() -> bool:
    """Return whether there is a libasound."""
    try:
        ctypes.CDLL(SONAME)
    except OSError:
        return False
    return True


def _check(result: int) -> None:
    if result < 0:
        raise AlsaError(result)


@cache
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(SONAME)
    except OSError as error:
        raise ConfigError("a microphone needs libasound, which is not installed: apt install alsa-utils") from error
    lib.snd_pcm_readi.argtypes, lib.snd_pcm_readi.restype = (c_void_p, c_void_p, c_ulong), c_long
    lib.snd_strerror.restype = c_char_p
    lib.snd_device_name_get_hint.argtypes, lib.snd_device_name_get_hint.restype = (c_void_p, c_char_p), c_void_p
    # Errors reach us as return values, so libasound must not also write them to standard error. Any C function that
    # ignores its arguments will do as the handler; unlike a Python function, it needs no writable code.
    lib.snd_lib_error_set_handler(ctypes.cast(ctypes.CDLL(None).getpid, c_void_p))
    return lib
