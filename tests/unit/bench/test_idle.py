from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ
from agent.bench.agent_process import Look
from agent.bench.clips import Clip
from agent.bench.idle import idle_done, idle_summaries, plan_idle, quiet_sound, rest
from agent.bench.records import IdleMeasurement
from agent.bench.systems import parse_system

SYSTEMS = [parse_system("whisper_cpp:one"), parse_system("whisper_cpp:two:isolation=thread")]


def at_rest(system: str, repeat: int, cpu_s: float) -> IdleMeasurement:
    """A hundred seconds of silence."""
    return IdleMeasurement(system, repeat, 100.0, cpu_s, 2.0, 150_000_000 + repeat, 0)


def test_systems_take_turns() -> None:
    """Whatever slows the machine in one pass slows all systems, and nothing is done twice."""
    steps = plan_idle(SYSTEMS, repeats=2)
    assert [step.key for step in steps] == [(system.name, repeat) for repeat in range(2) for system in SYSTEMS]
    assert idle_done([at_rest(step.system.name, step.repeat, 1.0) for step in steps]) == {step.key for step in steps}


def test_the_share_of_a_core_is_the_median_over_runs() -> None:
    """One run in which something else happened does not show in it, but it does in the highest."""
    (summary,) = idle_summaries([at_rest("x", repeat, cpu_s) for repeat, cpu_s in enumerate((0.5, 9.0, 0.6))])
    assert summary.core_share == pytest.approx(0.006)
    assert summary.core_share_max == pytest.approx(0.09)
    assert (summary.runs, summary.loading_cpu_s, summary.peak_pss_bytes) == (3, 2.0, 150_000_002)


def test_loading_does_not_count_as_rest() -> None:
    """The span begins with the first look after loading and ends with the last."""
    looks = [Look(0.0, 0.0), Look(10.0, 3.0), Look(20.1, 3.1), Look(60.0, 3.5)]
    assert rest(looks) == (looks[2], looks[3])
    with pytest.raises(ValueError, match="nothing was seen"):
        rest(looks[:3])


def test_silence_goes_on_for_as_long_as_was_asked(tmp_path: Path) -> None:
    """Recordings of silence are repeated, speech is left out, and without any recording there is a quiet room."""
    path = tmp_path / "hum.wav"
    soundfile.write(path, np.full(SAMPLE_RATE_HZ, 7, np.int16), SAMPLE_RATE_HZ)
    hum = Clip("set", "hum", path, "none", "", 1.0)
    speech = Clip("set", "speech", tmp_path / "missing.wav", "en", "words", 1.0)
    assert (quiet_sound([speech, hum], 2.5) == np.full(40_000, 7)).all()
    room = quiet_sound([speech], 1.0)
    assert len(room) == SAMPLE_RATE_HZ
    assert 4 < room.std() < 16
