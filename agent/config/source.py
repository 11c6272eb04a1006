"""The settings of where sound comes from and what is done to it: a part of `config.Settings`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.config.section import Section


class AlsaSettings(Section):
    """A microphone, by ALSA."""

    kind: Literal["alsa"] = "alsa"
    device: str = "default"
    """PCM name. Prefer `plughw:CARD=<id>` (see `edgescribe devices`) to a card number, which changes on replugging."""
    channel: Annotated[int, Field(ge=1, le=64)] = 1
    """Which channel of a device with several is listened to; the first is 1. Where an array mixes its microphones by
    itself, the result is a channel of its own (see its manual)."""
    when_missing: Literal["exit", "wait"] = "exit"
    """What to do if there is no such device at the start: say so and exit with 69, or wait for it (services do)."""


class WavSettings(Section):
    """A recording (WAV, FLAC, OGG or MP3; with the extra `faster-whisper` also M4A, MP4, WebM and AAC)."""

    kind: Literal["wav"] = "wav"
    path: Path
    """The file; `-` is standard input."""
    channel: Annotated[int, Field(ge=1, le=64)] | None = None
    """Which channel is listened to; the first is 1. Default: all of them, mixed."""
    pace: Literal["realtime", "flat_out"] = "realtime"
    """As fast as a microphone would deliver it, or as fast as it can be transcribed (then nothing is ever dropped)."""


SourceSettings = Annotated[AlsaSettings | WavSettings, Field(discriminator="kind")]


class SoundSettings(Section):
    """What is done to the sound. Needs `/opt/edgescribe/bin/pip install '.[enhance]'` in the checkout, then restart."""

    noise_suppression: Annotated[int, Field(ge=0, le=4)] = 0
    """0 is off, 4 the most: for steady noise, such as that of a fan. Whisper copes with a good deal by itself, and what
    a filter takes away cannot be heard any more: compare."""
    auto_gain: bool = False
    """Bring speech to the same level, whoever speaks from wherever: for a microphone that is far away and has no gain
    of its own."""
