"""Microphones by libasound: opening, reading, and what devices there are."""

import errno
import logging
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from agent.audio import libasound
from agent.audio.framer import PcmFormat
from agent.audio.libasound import AlsaError, Pcm, Wish
from agent.errors import DeviceBusy, DeviceUnavailable, SourceError

log = logging.getLogger(__name__)

PERIODS_PER_S = 50
"""Chunks of 20 ms."""
BUFFER_S = 1.0
RATES_HZ = (16_000, 48_000, 32_000, 96_000, 44_100, 192_000, 22_050)
"""Ours, then what comes down to it by a whole number, then the others that are not below it."""
IDLE_S = 0.01
"""Pause where a device claims to be readable and gives nothing."""

CHOOSE = "set source.device to"
"""How a remedy begins that names another microphone; commands that take it otherwise put their own words there."""
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
    """An open capture device. Used by one thread only, `close` included.

    Asks for the hardware's own rate and channels, so that the microphone wanted can be picked out of them and the rate
    be converted well (libasound's own converter folds what is above 8 kHz into speech). Where that cannot be had, or
    not in samples that we understand, libasound converts after all.
    """

    def __init__(self, device: str, channel: int = 1) -> None:
        """Open `device`, for the sake of its n-th channel.

        Raises:
            ConfigError: there is no libasound.
            DeviceBusy: something else has it open.
            DeviceUnavailable: there is no such device.
            SourceError: it has not so many channels, or cannot be made to deliver samples that we understand.
        """
        self._name = device
        self._pcm = _open(device, channel)
        got = self._pcm.got
        self.format = PcmFormat(got.rate_hz, got.channels, got.sample)

    def read(self, timeout_s: float) -> Chunk:
        """Return what has been captured; an empty chunk if that is nothing within `timeout_s`.

        Raises:
            DeviceUnavailable: the device is gone or broken; only closing it and opening it again helps.
        """
        try:
            data = self._pcm.read()
        except AlsaError as error:
            if error.number == errno.EPIPE:
                return Chunk(b"", overrun=True)
            raise DeviceUnavailable(f'the microphone "{self._name}" was lost ({error})') from error
        if not data and self._pcm.wait(timeout_s):
            time.sleep(IDLE_S)
        return Chunk(data)

    def close(self) -> None:
        """Release the device; idempotent."""
        self._pcm.close()


def capture_devices(proc: Path = Path("/proc/asound")) -> tuple[CaptureDevice, ...]:
    """Every capture device: the cards that the kernel lists, then the PCMs that libasound's configuration names."""
    named = libasound.capture_names()
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


def _open(device: str, channel: int) -> Pcm:
    wish = Wish(channel, RATES_HZ, converted=False, periods_per_s=PERIODS_PER_S, buffer_s=BUFFER_S)
    try:
        return Pcm(device, wish)
    except AlsaError as error:
        if error.number == errno.EBUSY:
            raise DeviceBusy(
                f'something else has the microphone "{device}" open ({error}): see what (`sudo fuser -v /dev/snd/*`)'
            ) from error
        if error.number != errno.EINVAL:
            raise DeviceUnavailable(f'cannot open the microphone "{device}" ({error}): {_choice()}') from error
    try:
        pcm = Pcm(plugged(device), replace(wish, converted=True))
    except AlsaError as error:
        raise SourceError(
            f'the microphone "{device}" delivers nothing that can be used ({error}): '
            f"see what it can do (`arecord -D {device} --dump-hw-params`), and whether it has a channel {channel}"
        ) from error
    log.info(f'libasound converts what the microphone "{device}" delivers')
    return pcm


def plugged(device: str) -> str:
    """The same device behind libasound's converter."""
    if device.startswith("hw:"):
        return f"plug{device}"
    return device if device.startswith("plug") else f"plug:'{device}'"


def _choice() -> str:
    """The remedy: what there is instead."""
    devices = capture_devices()
    if not devices:
        return "there is no microphone on this machine; plug one in (`edgescribe devices` lists them)"
    return f"{CHOOSE} {' or '.join(device.pcm for device in devices)}"
