"""Listens to the microphone for a while: level, silence, overruns, gaps, clipping, offset."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from agent.audio.alsa import AlsaSource
from agent.audio.frames import SAMPLE_RATE_HZ, SILENCE_DBFS, rms_dbfs
from agent.audio.monitor import OFFSET_PCT, AudioMonitor, Condition
from agent.config.settings import AlsaSettings
from agent.diagnostics import Finding, Status
from agent.errors import ConfigError, SourceError

LISTEN_S: Final = 10.0
FLOOR_PART: Final = 10
"""The floor is the level that a tenth of the frames do not exceed, as in the voice detector."""
NOISY_DBFS: Final = -35.0
QUIET_DBFS: Final = -50.0
CLIPPED_PCT: Final = 1.0
GAIN: Final = "`alsamixer`, F6 for the card, F4 for capture"


@dataclass(frozen=True, slots=True)
class Heard:
    """Properties of the sound of a microphone."""

    seconds: float
    """Of sound."""
    floor_dbfs: float
    """Level of the quietest tenth."""
    loudest_dbfs: float
    """Level of the loudest frame of 32 ms."""
    silent: bool
    """All samples are the same."""
    overruns: int
    condition: Condition
    problem: str = ""
    """Why no sound came, or no more; empty if all did."""


def listen(settings: AlsaSettings, seconds: float = LISTEN_S) -> Heard:
    """Listen for `seconds`. A failure is part of the answer."""
    monitor, levels, silent, samples = AudioMonitor(), [SILENCE_DBFS], True, 0
    overruns, problem = 0, ""
    try:
        source = AlsaSource(settings)
        try:
            while samples < seconds * SAMPLE_RATE_HZ and (frame := source.read()):
                monitor.hear(frame)
                levels.append(rms_dbfs((frame.pcm - frame.pcm.mean()).astype(np.int16)))
                silent = silent and bool((frame.pcm == frame.pcm[0]).all())
                samples += len(frame.pcm)
        finally:
            overruns = source.xruns
            source.close()
    except (SourceError, ConfigError) as error:
        problem = str(error)
    heard = sorted(levels[1:] or levels)
    floor = heard[len(heard) // FLOOR_PART]
    return Heard(samples / SAMPLE_RATE_HZ, floor, heard[-1], silent, overruns, monitor.condition, problem)


def findings(heard: Heard) -> Iterator[Finding]:
    """Return the faults, each with its remedy; if there is none, the levels."""
    if heard.problem:
        yield Finding(Status.FAIL, "microphone", heard.problem)
        return
    if heard.silent:
        remedy = f"switch it on, or unmute it ({GAIN})"
        yield Finding(Status.FAIL, "microphone", f"dead silence for {heard.seconds:.0f} s", remedy)
        return
    faults = list(_faults(heard))
    for text, remedy in faults:
        yield Finding(Status.WARN, "microphone", text, remedy)
    if not faults:
        text = (
            f"{heard.seconds:.0f} s without overruns, gaps or clipping: quiet at {heard.floor_dbfs:.0f} dBFS, "
            f"at its loudest {heard.loudest_dbfs:.0f} dBFS"
        )
        yield Finding(Status.OK, "microphone", text)


def _faults(heard: Heard) -> Iterator[tuple[str, str]]:
    condition = heard.condition
    if heard.overruns or condition.gaps:
        yield (
            f"{heard.overruns} overruns in {heard.seconds:.0f} s, {condition.lost_s:.2f} s of sound lost",
            "try another USB port or hub and a better power supply, and see what keeps the CPU busy (`top`)",
        )
    if (condition.clip_pct or 0.0) > CLIPPED_PCT:
        yield f"{condition.clip_pct:.0f} % of the time it is too loud, and cut off", f"turn its gain down ({GAIN})"
    if abs(condition.offset_pct or 0.0) >= OFFSET_PCT[1]:
        text = f"its samples are off by {condition.offset_pct:.0f} % of full scale"
        yield text, "try another microphone or sound card: this one is faulty"
    if heard.floor_dbfs > NOISY_DBFS:
        remedy = f"move it away from fans, turn its gain down ({GAIN}), or try sound.noise_suppression"
        yield f"never quieter than {heard.floor_dbfs:.0f} dBFS", remedy
    elif heard.loudest_dbfs < QUIET_DBFS:
        text = f"never louder than {heard.loudest_dbfs:.0f} dBFS: too quiet, if you spoke"
        yield text, f"speak while it listens; turn its gain up ({GAIN}), or set sound.auto_gain"
