import errno
from pathlib import Path
from typing import Any

import pytest

from agent.audio.libasound import AlsaError, AlsaPcm, CaptureDevice, card_devices
from agent.errors import DeviceBusy

CARDS = """\
 0 [Headphones     ]: bcm2835_headpho - bcm2835 Headphones
                      bcm2835 Headphones
 1 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media Electronics Inc. USB PnP Sound Device at usb-0000:01:00.0-1.3, full speed
 3 [seeed2micvoicec]: seeed2micvoicec - seeed-2mic-voicecard
                      seeed-2mic-voicecard
"""
PCM = """\
00-00: bcm2835 Headphones : bcm2835 Headphones : playback 8
01-00: USB Audio : USB Audio : playback 1 : capture 1
03-01: bcm2835-i2s-wm8960-hifi wm8960-hifi-0 : bcm2835-i2s-wm8960-hifi wm8960-hifi-0 : capture 1
"""


def test_cards_that_capture_are_listed_by_id(tmp_path: Path) -> None:
    """From a Pi's /proc/asound: what only plays is left out; names hold the card's id, not its number."""
    (tmp_path / "cards").write_text(CARDS, encoding="utf-8")
    (tmp_path / "pcm").write_text(PCM, encoding="utf-8")
    assert card_devices(tmp_path) == (
        CaptureDevice("plughw:CARD=Device,DEV=0", "USB PnP Sound Device, USB Audio"),
        CaptureDevice(
            "plughw:CARD=seeed2micvoicec,DEV=1", "seeed-2mic-voicecard, bcm2835-i2s-wm8960-hifi wm8960-hifi-0"
        ),
    )


def test_a_machine_without_sound_has_no_cards(tmp_path: Path) -> None:
    """No sound driver, no /proc/asound; and with a driver but no card, its file says so in words."""
    assert card_devices(tmp_path) == ()
    (tmp_path / "cards").write_text("--- no soundcards ---\n", encoding="utf-8")
    (tmp_path / "pcm").write_text("", encoding="utf-8")
    assert card_devices(tmp_path) == ()


class BusyError(AlsaError):
    """What libasound says of a card that somebody has open; it cannot be asked for the words where it is not."""

    def __init__(self) -> None:
        Exception.__init__(self, "Device or resource busy")
        self.number = errno.EBUSY


def test_a_microphone_that_somebody_has_open_is_said_with_how_to_find_out_who(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device in the settings would be no remedy."""

    def pcm(*_: Any, converted: bool) -> None:
        assert not converted
        raise BusyError

    monkeypatch.setattr(AlsaPcm, "_open", pcm)
    with pytest.raises(DeviceBusy) as caught:
        AlsaPcm("plughw:CARD=Device")
    assert str(caught.value) == (
        'something else has the microphone "plughw:CARD=Device" open (Device or resource busy): see what '
        "(`sudo fuser -v /dev/snd/*`)"
    )
