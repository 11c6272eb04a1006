"""What we need of libasound, by ctypes: every call here lets other threads run while it waits, `snd_pcm_open` included.

pyalsaaudio's does not: a sound server that hangs while a device is being opened would stop the whole process
(docs/decisions/0011-libasound-by-ctypes.md). Names and numbers are those of alsa/pcm.h.
"""

import ctypes
import errno
import itertools
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Final

from agent.errors import ConfigError

SONAME: Final = "libasound.so.2"
FORMATS: Final = {"S16_LE": 2, "S32_LE": 10, "S24_3LE": 32, "S24_LE": 6}
"""Sample formats that we understand, the ones that we prefer first, with their numbers."""

_BYTES: Final = {"S16_LE": 2, "S32_LE": 4, "S24_3LE": 3, "S24_LE": 4}
_CAPTURE: Final = 1
_NONBLOCK, _NO_AUTO_CHANNELS = 0x1, 0x20000
_INTERLEAVED: Final = 3

_PARAMS: Final = (c_void_p, c_void_p)
_SIGNATURES: Final = {
    "snd_pcm_open": (POINTER(c_void_p), c_char_p, c_int, c_int),
    "snd_pcm_close": (c_void_p,),
    "snd_pcm_prepare": (c_void_p,),
    "snd_pcm_wait": (c_void_p, c_int),
    "snd_pcm_hw_params_malloc": (POINTER(c_void_p),),
    "snd_pcm_hw_params_free": (c_void_p,),
    "snd_pcm_hw_params_any": _PARAMS,
    "snd_pcm_hw_params": _PARAMS,
    "snd_pcm_hw_params_set_access": (*_PARAMS, c_int),
    "snd_pcm_hw_params_set_rate_resample": (*_PARAMS, c_uint),
    "snd_pcm_hw_params_set_format": (*_PARAMS, c_int),
    "snd_pcm_hw_params_set_channels_min": (*_PARAMS, POINTER(c_uint)),
    "snd_pcm_hw_params_set_channels_first": (*_PARAMS, POINTER(c_uint)),
    "snd_pcm_hw_params_test_rate": (*_PARAMS, c_uint, c_int),
    "snd_pcm_hw_params_set_rate_near": (*_PARAMS, POINTER(c_uint), POINTER(c_int)),
    "snd_pcm_hw_params_set_period_size_near": (*_PARAMS, POINTER(c_ulong), POINTER(c_int)),
    "snd_pcm_hw_params_set_buffer_size_near": (*_PARAMS, POINTER(c_ulong)),
    "snd_device_name_hint": (c_int, c_char_p, POINTER(POINTER(c_void_p))),
    "snd_device_name_free_hint": (POINTER(c_void_p),),
}


class AlsaError(Exception):
    """A call of libasound failed; never leaves this package."""

    def __init__(self, code: int) -> None:
        super().__init__(_library().snd_strerror(code).decode(errors="replace"))
        self.number = -code
        """As in `errno`."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a device should deliver."""

    channels: int
    """At least so many."""
    rates_hz: tuple[int, ...]
    """The first of these that it can do without converting; otherwise what comes nearest to the first."""
    converted: bool
    """Let libasound convert the rate where it can (`plug`). Channels never: it would make up what is not there."""
    periods_per_s: int
    buffer_s: float


@dataclass(frozen=True, slots=True)
class Got:
    """How it does."""

    rate_hz: int
    channels: int
    sample: str
    """A key of `FORMATS`."""
    period: int
    """Samples of each channel that it delivers at a time."""


class Pcm:
    """A capture device. Not to be used by two threads at once, `close` included.

    Raises:
        ConfigError: there is no libasound.
        AlsaError: it cannot be opened; by a call that does not say, EINVAL: it cannot do what is wished.
    """

    def __init__(self, device: str, wish: Wish) -> None:
        self._lib = _library()
        self._handle = c_void_p()
        mode = _NONBLOCK | _NO_AUTO_CHANNELS
        _check(self._lib.snd_pcm_open(byref(self._handle), device.encode(), _CAPTURE, mode))
        params = c_void_p()
        try:
            _check(self._lib.snd_pcm_hw_params_malloc(byref(params)))
            self.got = self._configure(params, wish)
        except AlsaError:
            self.close()
            raise
        finally:
            self._lib.snd_pcm_hw_params_free(params)
        self._buffer = ctypes.create_string_buffer(self.got.period * self.got.channels * 4)

    def _configure(self, params: c_void_p, wish: Wish) -> Got:
        lib, pcm = self._lib, self._handle
        _check(lib.snd_pcm_hw_params_any(pcm, params))
        _check(lib.snd_pcm_hw_params_set_rate_resample(pcm, params, int(wish.converted)))
        _check(lib.snd_pcm_hw_params_set_access(pcm, params, _INTERLEAVED))
        sample = next(
            (name for name, code in FORMATS.items() if not lib.snd_pcm_hw_params_set_format(pcm, params, code)), None
        )
        if sample is None:
            raise AlsaError(-errno.EINVAL)
        channels = c_uint(wish.channels)
        _check(lib.snd_pcm_hw_params_set_channels_min(pcm, params, byref(channels)))
        _check(lib.snd_pcm_hw_params_set_channels_first(pcm, params, byref(channels)))
        possible = (each for each in wish.rates_hz if not lib.snd_pcm_hw_params_test_rate(pcm, params, each, 0))
        rate, up_or_down = c_uint(next(possible, wish.rates_hz[0])), c_int(0)
        _check(lib.snd_pcm_hw_params_set_rate_near(pcm, params, byref(rate), byref(up_or_down)))
        period, buffer = c_ulong(rate.value // wish.periods_per_s), c_ulong(round(rate.value * wish.buffer_s))
        _check(lib.snd_pcm_hw_params_set_period_size_near(pcm, params, byref(period), byref(c_int(0))))
        _check(lib.snd_pcm_hw_params_set_buffer_size_near(pcm, params, byref(buffer)))
        _check(lib.snd_pcm_hw_params(pcm, params))
        return Got(rate.value, channels.value, sample, period.value)

    def read(self) -> bytes:
        """Up to a period of interleaved samples; nothing if there are none now.

        Raises:
            AlsaError: EPIPE after an overrun, and then the device runs again; anything else: it is lost.
        """
        count = int(self._lib.snd_pcm_readi(self._handle, self._buffer, self.got.period))
        if count >= 0:
            return self._buffer.raw[: count * self.got.channels * _BYTES[self.got.sample]]
        if count == -errno.EAGAIN:
            return b""
        if count == -errno.EPIPE:
            _check(self._lib.snd_pcm_prepare(self._handle))
        raise AlsaError(count)

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to `read`, an error included, within `timeout_s`."""
        return bool(self._lib.snd_pcm_wait(self._handle, round(timeout_s * 1_000)))

    def close(self) -> None:
        """Release it; idempotent."""
        if self._handle:
            self._lib.snd_pcm_close(self._handle)
            self._handle = c_void_p()


def capture_names() -> Iterator[str]:
    """Every PCM that libasound's configuration names for capture."""
    lib, hints = _library(), POINTER(c_void_p)()
    if lib.snd_device_name_hint(-1, b"pcm", byref(hints)):
        return
    try:
        for hint in itertools.takewhile(bool, map(hints.__getitem__, itertools.count())):
            if _hint(hint, b"IOID") in ("", "Input"):  # without one it does both
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
    """Whether there is a libasound."""
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
    for name, arguments in _SIGNATURES.items():
        getattr(lib, name).argtypes = arguments
    lib.snd_pcm_readi.argtypes, lib.snd_pcm_readi.restype = (c_void_p, c_void_p, c_ulong), c_long
    lib.snd_strerror.argtypes, lib.snd_strerror.restype = (c_int,), c_char_p
    lib.snd_device_name_get_hint.argtypes, lib.snd_device_name_get_hint.restype = (c_void_p, c_char_p), c_void_p
    # What goes wrong reaches us as a return value; libasound need not write it to standard error as well. Any function
    # of C that ignores its arguments does for a handler, and unlike one of Python's it needs no writable code.
    lib.snd_lib_error_set_handler.argtypes = (c_void_p,)
    lib.snd_lib_error_set_handler(ctypes.cast(ctypes.CDLL(None).getpid, c_void_p))
    return lib
