"""Measures candidates against the clock: each in a child process of its own, one at a time, within a given time.

1. Every model once through the clips, with as many threads as there may be, the cheapest first. A hopeless one is given
   up on the way, and so is what is larger on the same engine.
2. The model that would be chosen, with fewer threads.
3. All of them again, those on the front first, in turning order, as long as there is time. The best pass counts: a
   disturbance only ever makes a measurement slower.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.bench.child import Answer
from agent.bench.clips import Clip, load_pcm
from agent.bench.process import SystemProcess
from agent.calibrate.candidates import smaller_in_vain
from agent.errors import AgentError
from agent.messages.presentation import score
from agent.models.calibration import Candidate, Limits, Measurement, Skipped, plural
from agent.models.catalogue import Model
from agent.models.choice import choose, engine_for, keeps_up, pareto_front

MOST_PASSES: Final = 3
HOPELESS_RTF: Final = 1.0
"""Slower than speech: not worth finishing, if something faster has been found."""
_CLIPS_TO_JUDGE: Final = 2
_LEAST_LEFT_S: Final = 2.0
"""Nothing is begun in less."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a survey."""

    measurements: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...]
    out_of_time: bool = False
    """Whether anything was skipped for want of time."""


class _TooSlow(AgentError):  # noqa: N818 - a verdict, not a mistake
    """Not worth going on with."""


@dataclass(slots=True, eq=False)
class _Course:
    """What one candidate has done so far."""

    model: Model
    candidate: Candidate
    answers: list[list[Answer]]
    """By clip, then by pass."""
    load_s: float = 0.0
    pass_s: float = 0.0
    """Seconds that its last pass took, loading included."""
    passes: int = 0


class Survey:
    """One calibration; `run` is called once.

    Args:
        clips: Are transcribed, and have their words.
        start: Loads a candidate within so many seconds, in a process of its own; raises AgentError.
        limits: What candidates have to keep to.
        budget_s: Seconds that all of it may take.
        clock: Monotonic seconds.
        tell: Receives what is being done, in a few words.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        start: Callable[[Candidate, float], SystemProcess],
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
        self._skipped: list[Skipped] = []
        self._too_slow: list[Model] = []
        self._out_of_time = False

    def run(self, models: Sequence[Model], threads: Sequence[int]) -> Findings:
        """Measure `models`, the cheapest first, with the numbers of `threads`, the largest first."""
        for model in models:
            if smaller := smaller_in_vain(model, self._too_slow):
                self._skip(model, f"{smaller.name} is smaller, and too slow already")
            elif self._left_s < _LEAST_LEFT_S:
                self._skip(model, "no time was left for it")
            else:
                self._try(model, threads[0], "")
        if self._courses:
            self._vary_threads(threads[1:])
        for turn in range(MOST_PASSES - 1):
            for course in self._in_turn(backwards=bool(turn % 2)):
                if course.pass_s <= self._left_s and course.passes < MOST_PASSES:
                    self._repeat(course)
        return Findings(self._measurements(), tuple(self._skipped), self._out_of_time)

    @property
    def _left_s(self) -> float:
        return self._deadline_s - self._clock()

    def _measurements(self) -> tuple[Measurement, ...]:
        return tuple(_measurement(course, self._clips) for course in self._courses)

    def _vary_threads(self, threads: Sequence[int]) -> None:
        favourite = choose(self._measurements(), self._limits).candidate
        course = next(course for course in self._courses if course.candidate == favourite)
        for number in threads:
            if course.pass_s * course.candidate.threads / number <= self._left_s:
                self._try(course.model, number, f"with {plural(number, 'thread')}: ")

    def _in_turn(self, *, backwards: bool) -> list[_Course]:
        """Those on the front, then the others: a slow minute in their first pass may be why they are not on it."""
        front = {measurement.candidate for measurement in pareto_front(self._measurements())}
        courses = self._courses[::-1] if backwards else self._courses
        return sorted(courses, key=lambda course: course.candidate not in front)

    def _try(self, model: Model, threads: int, what: str) -> None:
        course = _Course(model, Candidate(engine_for(model), model.name, threads), [[] for _ in self._clips])
        try:
            self._pass(course)
        except AgentError as error:
            if isinstance(error, _TooSlow):
                self._too_slow.append(model)
            self._skip(model, f"{what}{error}")
            return
        self._courses.append(course)
        if not keeps_up(_measurement(course, self._clips), self._limits):
            self._too_slow.append(model)

    def _repeat(self, course: _Course) -> None:
        """Another pass. If it fails, the earlier ones stand, and what it has done of this one counts, too."""
        try:
            self._pass(course)
        except AgentError as error:
            self._tell(str(error))

    def _pass(self, course: _Course) -> None:
        self._tell(f"{course.candidate}, pass {course.passes + 1}")
        began_s = self._clock()
        process = self._start(course.candidate, self._left_s)
        course.load_s = course.load_s or process.load_s
        try:
            for index, clip in enumerate(self._clips):
                if self._left_s <= 0:
                    raise AgentError("not through with the clips when the time was over")
                course.answers[index].append(process.transcribe(load_pcm(clip), clip.language, self._left_s))
                if not course.passes and index + 1 >= _CLIPS_TO_JUDGE:
                    self._judge(course, index + 1)
        finally:
            process.close()
        course.passes += 1
        course.pass_s = self._clock() - began_s

    def _judge(self, course: _Course, clips: int) -> None:
        """Give up early what can only lose.

        Raises:
            _TooSlow: slower than speech, while another one is not.
        """
        wall_s = sum(answers[0].wall_s for answers in course.answers[:clips])
        rtf = wall_s / sum(clip.duration_s for clip in self._clips[:clips])
        if rtf > HOPELESS_RTF and any(one.rtf_p95 < rtf for one in self._measurements()):
            raise _TooSlow(f"given up after {clips} clips at a real-time factor of {rtf:.1f}")

    def _skip(self, model: Model, why: str) -> None:
        # Even a failure may come from it: the time that is left is the limit of all that is done.
        self._out_of_time |= self._left_s < _LEAST_LEFT_S
        self._skipped.append(Skipped(engine_for(model), model.name, why))
        self._tell(f"{engine_for(model)} {model.name}: {why}")


def _measurement(course: _Course, clips: Sequence[Clip]) -> Measurement:
    """Per clip the best of its passes, then over the clips what the fields of `Measurement` say."""
    wall_s = [min(answer.wall_s for answer in answers) for answers in course.answers]
    cpu_s = [min(answer.cpu_s for answer in answers) for answers in course.answers]
    # The same samples give the same words: the first pass tells.
    scores = [score(clip.text, answers[0].text) for clip, answers in zip(clips, course.answers, strict=True)]
    return Measurement(
        candidate=course.candidate,
        size=course.model.size,
        english_only=course.model.languages == "en",
        words=sum(one.expected for one in scores),
        errors=sum(one.errors for one in scores),
        rtf_p95=p95([took_s / clip.duration_s for took_s, clip in zip(wall_s, clips, strict=True)]),
        latency_p50_s=statistics.median(wall_s),
        cpu_per_speech=sum(cpu_s) / sum(clip.duration_s for clip in clips),
        peak_mb=max(answer.peak_rss_bytes for answers in course.answers for answer in answers) // 1_000_000,
        load_s=course.load_s,
        passes=course.passes,
    )


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile by the nearest rank: of fewer than 20 values the largest."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
