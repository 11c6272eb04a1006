"""Measures candidates against the clock: every one in a child process of its own, and all within a given time.

1. Every model once through the clips, with as many threads as there may be, the cheapest first. What turns out to be
   hopeless is dropped on the way, and so is what is larger on the same engine.
2. The model that would be chosen, with fewer threads.
3. All of them again, those on the front first, in turning order, as long as there is time. The best pass counts: what
   disturbs a measurement only ever makes it slower.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.bench.clips import Clip
from agent.errors import AgentError
from agent.messages.presentation import score
from agent.models.calibration_records import Candidate, Limits, Measurement, Skipped, plural
from agent.models.candidates import Contender, expected_mb, smaller_in_vain
from agent.models.pareto import choose, keeps_up, pareto_front

MOST_PASSES = 3
HOPELESS_RTF = 1.0
"""Slower than speech: not worth finishing, if something faster has been found."""
_CLIPS_TO_JUDGE = 2
_LEAST_LEFT_S = 2.0
"""Nothing is begun in less."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip, once."""

    text: str
    wall_s: float
    cpu_s: float
    """User and system time of the process."""
    peak_mb: int
    """Most memory so far, in 10⁶ bytes."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What came out."""

    measurements: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...]
    out_of_time: bool = False
    """Whether anything was skipped for want of time."""


class Trial(Protocol):
    """A candidate that is loaded. Raises AgentError where it fails or takes longer than it may."""

    load_s: float

    def transcribe(self, clip: Clip, limit_s: float) -> Sample:
        """Put one clip through it."""

    def close(self) -> None:
        """End it; idempotent."""


StartTrial = Callable[[Candidate, float], Trial]
"""Loads a candidate within so many seconds; raises AgentError."""


class _TooSlow(AgentError):  # noqa: N818 - a verdict, not a mistake
    """Not worth to go on with."""


@dataclass(slots=True, eq=False)
class _Course:
    """What one candidate has done so far."""

    contender: Contender
    candidate: Candidate
    samples: list[list[Sample]]
    """By clip, then by pass."""
    load_s: float = 0.0
    pass_s: float = 0.0
    """Seconds that its last pass took, loading included."""
    passes: int = 0
    trial: Trial | None = field(default=None, repr=False)

    @property
    def memory_mb(self) -> int:
        """As far as it is known."""
        peaks = [sample.peak_mb for clip in self.samples for sample in clip]
        return max(peaks, default=expected_mb(self.contender.model))


class Survey:
    """One calibration; `run` is called once.

    Args:
        clips: What is transcribed, with its words.
        start: How a candidate is loaded.
        limits: What candidates have to keep to.
        budget_s: Seconds that all of it may take.
        clock: Monotonic seconds.
        tell: Is told what is being done, in a few words.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        start: StartTrial,
        limits: Limits,
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._clips = clips
        self._start = start
        self._limits = limits
        self._clock = clock
        self._deadline_s = clock() + budget_s
        self._tell = tell
        self._courses: list[_Course] = []
        """Those that went through all clips at least once."""
        self._loaded: list[_Course] = []
        """Those whose processes are there, in the order in which they were loaded."""
        self._skipped: list[Skipped] = []
        self._too_slow: list[Contender] = []
        self._out_of_time = False

    def run(self, contenders: Sequence[Contender], threads: Sequence[int]) -> Findings:
        """Measure `contenders`, the cheapest first, with the numbers of `threads`, the largest first."""
        try:
            for contender in contenders:
                self._consider(contender, threads[0])
            self._vary_threads(threads[1:])
            self._repeat()
        finally:
            for course in list(self._loaded):
                self._close(course)
        return Findings(self._measurements(), tuple(self._skipped), self._out_of_time)

    @property
    def _left_s(self) -> float:
        return self._deadline_s - self._clock()

    def _measurements(self) -> tuple[Measurement, ...]:
        return tuple(_measurement(course, self._clips) for course in self._courses)

    # The three parts.

    def _consider(self, contender: Contender, threads: int) -> None:
        if smaller := next(smaller_in_vain(contender, self._too_slow), None):
            self._skip(contender, f"{smaller.model.name} is smaller, and too slow already")
        elif self._left_s < _LEAST_LEFT_S:
            self._skip(contender, "no time was left for it")
        else:
            self._try(contender, contender.with_threads(threads), "")

    def _vary_threads(self, threads: Sequence[int]) -> None:
        if not self._courses:
            return
        favourite = choose(self._measurements(), self._limits).candidate
        course = next(course for course in self._courses if course.candidate == favourite)
        for number in threads:
            expected_s = course.pass_s * course.candidate.threads / number
            if expected_s <= self._left_s:
                self._try(course.contender, course.contender.with_threads(number), f"with {plural(number, 'thread')}: ")

    def _repeat(self) -> None:
        for turn in range(MOST_PASSES - 1):
            for course in self._in_turn(backwards=bool(turn % 2)):
                if course.pass_s <= self._left_s and course.passes < MOST_PASSES:
                    self._go_on(course)

    def _in_turn(self, *, backwards: bool) -> list[_Course]:
        """Those on the front, then the others: a slow minute in their first pass may be why they are not on it."""
        front = {measurement.candidate for measurement in pareto_front(self._measurements())}
        courses = self._courses[::-1] if backwards else self._courses
        return sorted(courses, key=lambda course: course.candidate not in front)

    # One candidate.

    def _try(self, contender: Contender, candidate: Candidate, what: str) -> None:
        course = _Course(contender, candidate, [[] for _ in self._clips])
        try:
            self._pass(course)
        except AgentError as error:
            self._close(course)
            if isinstance(error, _TooSlow):
                self._too_slow.append(contender)
            self._skip(contender, f"{what}{error}")
            return
        self._courses.append(course)
        if not keeps_up(_measurement(course, self._clips), self._limits):
            self._too_slow.append(contender)

    def _go_on(self, course: _Course) -> None:
        """Another pass; where it fails, the earlier ones stand, and what it has done of this one counts, too."""
        try:
            self._pass(course)
        except AgentError as error:
            self._tell(str(error))
            self._close(course)

    def _pass(self, course: _Course) -> None:
        self._tell(f"{course.candidate}, pass {course.passes + 1}")
        began_s = self._clock()
        trial = course.trial or self._load(course)
        for index, clip in enumerate(self._clips):
            if self._left_s <= 0:
                raise AgentError("not through with the clips when the time was over")
            course.samples[index].append(trial.transcribe(clip, self._left_s))
            if not course.passes and index + 1 >= _CLIPS_TO_JUDGE:
                self._judge(course, index + 1)
        course.passes += 1
        course.pass_s = self._clock() - began_s

    def _load(self, course: _Course) -> Trial:
        self._make_room(course.memory_mb)
        course.trial = self._start(course.candidate, self._left_s)
        self._loaded.append(course)
        course.load_s = course.load_s or course.trial.load_s
        return course.trial

    def _judge(self, course: _Course, clips: int) -> None:
        """Give up early what can only lose.

        Raises:
            _TooSlow: slower than speech, while another one is not.
        """
        wall_s = sum(samples[0].wall_s for samples in course.samples[:clips])
        rtf = wall_s / sum(clip.duration_s for clip in self._clips[:clips])
        if rtf > HOPELESS_RTF and any(one.rtf_p95 < rtf for one in self._measurements()):
            raise _TooSlow(f"given up after {clips} clips at a real-time factor of {rtf:.1f}")

    def _make_room(self, need_mb: int) -> None:
        """Close those that were loaded longest ago, until `need_mb` are left of the memory that engines may have."""
        while self._loaded and sum(one.memory_mb for one in self._loaded) + need_mb > self._limits.memory_mb:
            self._close(self._loaded[0])

    def _close(self, course: _Course) -> None:
        if course.trial:
            course.trial.close()
            course.trial = None
            self._loaded.remove(course)

    def _skip(self, contender: Contender, why: str) -> None:
        # Whatever is skipped with nothing left of the time: the limit of all that is done is what was left.
        self._out_of_time |= self._left_s < _LEAST_LEFT_S
        self._skipped.append(contender.skipped(why))
        self._tell(f"{contender.engine} {contender.model.name}: {why}")


def _measurement(course: _Course, clips: Sequence[Clip]) -> Measurement:
    """Per clip the best of its passes, then over the clips what the fields of `Measurement` say."""
    wall_s = [min(sample.wall_s for sample in samples) for samples in course.samples]
    cpu_s = [min(sample.cpu_s for sample in samples) for samples in course.samples]
    # The same samples give the same words: the first pass tells.
    scores = [score(clip.text, samples[0].text) for clip, samples in zip(clips, course.samples, strict=True)]
    return Measurement(
        candidate=course.candidate,
        size=course.contender.model.size,
        english_only=course.contender.model.languages == "en",
        words=sum(one.expected for one in scores),
        errors=sum(one.errors for one in scores),
        rtf_p95=p95([took_s / clip.duration_s for took_s, clip in zip(wall_s, clips, strict=True)]),
        latency_p50_s=statistics.median(wall_s),
        cpu_per_speech=sum(cpu_s) / sum(clip.duration_s for clip in clips),
        peak_mb=course.memory_mb,
        load_s=course.load_s,
        passes=course.passes,
    )


def p95(values: Sequence[float]) -> float:
    """95th percentile by the nearest rank: of fewer than 20 values the largest."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
