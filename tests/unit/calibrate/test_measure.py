from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from agent.audio.frames import Pcm16
from agent.bench.child import Answer
from agent.bench.clips import Clip
from agent.bench.process import SystemProcess
from agent.calibrate import measure
from agent.calibrate.measure import MOST_PASSES, Findings, Survey
from agent.errors import AgentError, EngineError
from agent.models.calibration import Candidate, Limits
from agent.models.catalogue import load_catalogue

CATALOGUE = load_catalogue()
CLIPS = [
    Clip("set", f"clip-{n}", Path("none.flac"), "en", "one two three four five", duration_s=duration_s)
    for n, duration_s in enumerate((2.0, 3.0, 5.0))
]
LOAD_S = 2.0


@pytest.fixture(autouse=True)
def _silence_for_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "load_pcm", lambda clip: np.zeros(round(16_000 * clip.duration_s), np.int16))


@dataclass
class Device:
    """Engines that take the time they are told to take, on a clock of their own."""

    rtf: dict[str, float]
    """By model; with several threads, the time is divided by their number."""
    mb: int = 100
    now_s: float = 0.0
    started: list[Candidate] = field(default_factory=list)
    open: set[Candidate] = field(default_factory=set)
    most_open: int = 0
    broken: frozenset[str] = frozenset()
    disturbed_until_s: float = 0.0
    """Until then, everything takes five times as long."""
    heard: str = "one two three four five"

    def clock(self) -> float:
        """Seconds on its own clock."""
        return self.now_s

    def start(self, candidate: Candidate, limit_s: float) -> "FakeProcess":
        """Load a candidate, unless it is broken."""
        if candidate.model in self.broken:
            raise EngineError(f"{candidate.model} cannot be loaded")
        self.started.append(candidate)
        self.open.add(candidate)
        self.most_open = max(self.most_open, len(self.open))
        self.now_s += min(LOAD_S, limit_s)
        return FakeProcess(self, candidate)


@dataclass
class FakeProcess:
    """One that is loaded."""

    device: Device
    candidate: Candidate
    load_s: float = LOAD_S

    def transcribe(self, pcm: Pcm16, _language: str, limit_s: float) -> Answer:
        """Let the time pass that it takes."""
        wall_s = len(pcm) / 16_000 * self.device.rtf[self.candidate.model] / self.candidate.threads
        wall_s *= 5 if self.device.now_s < self.device.disturbed_until_s else 1
        self.device.now_s += min(wall_s, limit_s)
        if wall_s > limit_s:
            raise AgentError("no answer in time")
        cpu_s, peak_bytes = wall_s * self.candidate.threads, self.device.mb * 1_000_000
        return Answer(self.device.heard, wall_s=wall_s, cpu_s=cpu_s, peak_rss_bytes=peak_bytes, pss_bytes=peak_bytes)

    def close(self) -> None:
        """Let go."""
        self.device.open.discard(self.candidate)


def survey(device: Device, *models: str, threads: Sequence[int] = (1,), budget_s: float = 1_000.0) -> Findings:
    """Measure the models in that order."""
    start = cast("Callable[[Candidate, float], SystemProcess]", device.start)
    running = Survey(CLIPS, start, Limits(memory_mb=10_000), budget_s, clock=device.clock)
    result = running.run([CATALOGUE.find(name) for name in models], threads)
    assert device.open == set(), "a process was left behind"
    return result


def test_figures_are_what_they_say() -> None:
    """Median sentence, 95th percentile of the real-time factors, CPU over all speech, words by edit distance."""
    device = Device({"tiny.en-q8_0": 0.2}, heard="one two three for five")
    (one,) = survey(device, "tiny.en-q8_0").measurements
    assert one.candidate == Candidate("whisper_cpp", "tiny.en-q8_0", 1)
    assert (one.words, one.errors) == (15, 3)
    assert one.latency_p50_s == pytest.approx(3.0 * 0.2)
    assert one.rtf_p95 == pytest.approx(0.2)
    assert one.cpu_per_speech == pytest.approx(0.2)
    assert (one.peak_mb, one.load_s, one.passes) == (100, LOAD_S, MOST_PASSES)
    assert (one.size, one.english_only) == ("tiny", True)


def test_passes_are_repeated_as_long_as_there_is_time_and_the_front_goes_first() -> None:
    """What something else beats in everything comes last, and may not have its turn."""
    rtf = {"tiny.en-q8_0": 0.2, "tiny.en-q4_0": 0.1}
    for budget_s, expected in ((1_000.0, MOST_PASSES), (2 * (LOAD_S + 2.0) + 2.0, 1)):
        found = survey(Device(rtf), *rtf, budget_s=budget_s)
        passes = {one.candidate.model: one.passes for one in found.measurements}
        assert passes["tiny.en-q8_0"] == expected
        assert passes["tiny.en-q4_0"] >= min(2, MOST_PASSES)


def test_a_disturbance_of_one_pass_does_not_count() -> None:
    """The best pass does."""
    device = Device({"tiny.en-q8_0": 0.2}, disturbed_until_s=LOAD_S + 3.0)
    (one,) = survey(device, "tiny.en-q8_0").measurements
    assert one.rtf_p95 == pytest.approx(0.2)


def test_what_cannot_keep_up_is_given_up_early_and_the_larger_ones_are_not_tried() -> None:
    """Two clips tell; something faster is there already."""
    device = Device({"tiny.en-ct2": 0.2, "tiny.en-q8_0": 1.5, "base-q8_0": 3.0, "base-ct2": 0.3})
    found = survey(device, "tiny.en-ct2", "tiny.en-q8_0", "base-q8_0", "base-ct2")
    assert {one.candidate.model for one in found.measurements} == {"tiny.en-ct2", "base-ct2"}
    why = {one.model: one.why for one in found.skipped}
    assert why["tiny.en-q8_0"] == "given up after 2 clips at a real-time factor of 1.5"
    assert why["base-q8_0"] == "tiny.en-q8_0 is smaller, and too slow already"
    assert "base-q8_0" not in {candidate.model for candidate in device.started}


def test_a_device_that_is_too_slow_for_anything_still_gets_figures() -> None:
    """As long as there is nothing faster, even the hopeless is measured."""
    found = survey(Device({"tiny.en-q8_0": 2.5}), "tiny.en-q8_0")
    assert [one.candidate.model for one in found.measurements] == ["tiny.en-q8_0"]


@pytest.mark.parametrize("budget_s", [5.0, 20.0, 47.0, 170.0])
def test_the_time_is_kept_whatever_the_device(budget_s: float) -> None:
    """No matter how slow everything is and how many candidates there are."""
    for rtf in (0.05, 0.4, 0.9, 4.0, 60.0):
        names = ["tiny.en-q8_0", "tiny.en-ct2", "tiny.en-q4_0", "tiny.en-q5_1", "base-q8_0", "base-ct2", "small-q8_0"]
        device = Device({name: rtf * (1 + index / 10) for index, name in enumerate(names)})
        survey(device, *names, threads=(3, 2, 1), budget_s=budget_s)
        assert device.now_s <= budget_s


def test_what_there_was_no_time_for_is_said() -> None:
    """Nothing is missing without a word."""
    device = Device({"tiny.en-q8_0": 0.5, "tiny.en-ct2": 0.5, "base-q8_0": 0.5})
    found = survey(device, "tiny.en-q8_0", "tiny.en-ct2", "base-q8_0", budget_s=LOAD_S + 5.0 + 3.0)
    assert [one.candidate.model for one in found.measurements] == ["tiny.en-q8_0"]
    assert {one.model for one in found.skipped} == {"tiny.en-ct2", "base-q8_0"}


def test_fewer_threads_are_tried_for_the_favourite_only() -> None:
    """Accuracy does not depend on threads, so the others need not be measured with all numbers of them."""
    device = Device({"tiny.en-q8_0": 0.3, "tiny.en-q4_0": 0.9})
    found = survey(device, "tiny.en-q8_0", "tiny.en-q4_0", threads=(3, 2, 1))
    tried = {(one.candidate.model, one.candidate.threads) for one in found.measurements}
    assert tried == {("tiny.en-q8_0", 3), ("tiny.en-q8_0", 2), ("tiny.en-q8_0", 1), ("tiny.en-q4_0", 3)}


def test_what_fails_to_load_does_not_keep_the_others_from_it() -> None:
    """Its error is the reason that is given."""
    device = Device({"tiny.en-ct2": 0.2}, broken=frozenset({"tiny.en-q8_0"}))
    found = survey(device, "tiny.en-q8_0", "tiny.en-ct2")
    assert [one.candidate.model for one in found.measurements] == ["tiny.en-ct2"]
    assert [(one.model, one.why) for one in found.skipped] == [("tiny.en-q8_0", "tiny.en-q8_0 cannot be loaded")]


def test_one_process_is_loaded_at_a_time() -> None:
    """No other one takes memory or time from it."""
    device = Device({"tiny.en-q8_0": 0.3, "tiny.en-ct2": 0.2, "tiny.en-q4_0": 0.1})
    survey(device, *device.rtf)
    assert device.most_open == 1


def test_want_of_time_is_told_from_other_troubles() -> None:
    """More time helps against one of them only."""
    broken = Device({}, broken=frozenset({"tiny.en-q8_0"}))
    assert not survey(broken, "tiny.en-q8_0").out_of_time
    for budget_s in (1.0, 3.0):
        found = survey(Device({"tiny.en-q8_0": 0.9}), "tiny.en-q8_0", budget_s=budget_s)
        assert (found.measurements, found.out_of_time) == ((), True)
