"""Measure candidates one at a time, each in a child process of its own, within a given time.

1. Measure every model once with the largest number of threads, the cheapest model first. Stop early at a model that
   is slower than speech, and skip larger models of the same engine.
2. Measure the best model again with fewer threads.
3. Repeat all measurements while there is time, the Pareto front first. Keep the best pass: other programs can only
   make a pass slower.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.bench.child import Answer
from agent.bench.clips import Clip, load_pcm
from agent.bench.process import SystemProcess
from agent.bench.score import percentile
from agent.calibrate.candidates import smaller_in_vain
from agent.errors import AgentError
from agent.messages.presentation import score
from agent.models.calibration import Candidate, Limits, Measurement, Skipped, plural
from agent.models.catalogue import Model
from agent.models.choice import choose, engine_for, keeps_up, pareto_front

MOST_PASSES: Final = 3
HOPELESS_RTF: Final = 1.0
"""A slower candidate is given up, if a faster one has been found."""
_CLIPS_TO_JUDGE: Final = 2
_LEAST_LEFT_S: Final = 2.0
"""With less time, no pass begins."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a survey."""

    measurements: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...]
    out_of_time: bool = False
    """Whether a candidate was skipped because the time was over."""


class _TooSlow(AgentError):  # noqa: N818 - a verdict, not a mistake
    """A candidate is slower than speech, and a faster one has been found."""


@dataclass(slots=True, eq=False)
class _Trial:
    """The results of one candidate so far."""

    model: Model
    candidate: Candidate
    answers: list[list[Answer]]
    """By clip, then by pass."""
    load_s: float = 0.0
    pass_s: float = 0.0
    """Seconds of its last pass, loading included."""
    passes: int = 0


@dataclass(slots=True, eq=False)
class Survey:
    """One calibration; `run` is called once."""

    clips: Sequence[Clip]
    """The clips to transcribe, with their words."""
    start: Callable[[Candidate, float], SystemProcess]
    """Loads a candidate within a number of seconds, in a process of its own; raises AgentError."""
    limits: Limits
    budget_s: float
    """Seconds for all of it."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    tell: Callable[[str], None] = lambda _text: None
    """Receives the current step, in a few words."""
    _deadline_s: float = field(init=False)
    _trials: list[_Trial] = field(default_factory=list, init=False)
    """The candidates with at least one complete pass."""
    _skipped: list[Skipped] = field(default_factory=list, init=False)
    _too_slow: list[Model] = field(default_factory=list, init=False)
    _out_of_time: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._deadline_s = self.clock() + self.budget_s

    def run(self, models: Sequence[Model], threads: Sequence[int]) -> Findings:
        """Measure `models`, the cheapest first, with the numbers of `threads`, the largest first."""
        for model in models:
            if smaller := smaller_in_vain(model, self._too_slow):
                self._skip(model, f"{smaller.name} is smaller, and too slow already")
            elif self._left_s < _LEAST_LEFT_S:
                self._skip(model, "no time was left for it")
            else:
                self._try(model, threads[0], "")
        if self._trials:
            best = choose(self._measurements(), self.limits).candidate
            trial = next(trial for trial in self._trials if trial.candidate == best)
            for number in threads[1:]:
                if trial.pass_s * best.threads / number <= self._left_s:
                    self._try(trial.model, number, f"with {plural(number, 'thread')}: ")
        self._repeat()
        return Findings(self._measurements(), tuple(self._skipped), self._out_of_time)

    def _repeat(self) -> None:
        for turn in range(MOST_PASSES - 1):
            front = {measurement.candidate for measurement in pareto_front(self._measurements())}
            trials = self._trials[::-1] if turn % 2 else self._trials
            # Repeat the others, too: perhaps one of them is not on the front only because of a slow minute.
            for trial in sorted(trials, key=lambda trial: trial.candidate not in front):
                if trial.pass_s <= self._left_s and trial.passes < MOST_PASSES:
                    try:
                        self._pass(trial)
                    except AgentError as error:  # keep the earlier passes, and the clips that this pass finished
                        self.tell(str(error))

    @property
    def _left_s(self) -> float:
        return self._deadline_s - self.clock()

    def _measurements(self) -> tuple[Measurement, ...]:
        return tuple(_measurement(trial, self.clips) for trial in self._trials)

    def _try(self, model: Model, threads: int, what: str) -> None:
        trial = _Trial(model, Candidate(engine_for(model), model.name, threads), [[] for _ in self.clips])
        try:
            self._pass(trial)
        except AgentError as error:
            if isinstance(error, _TooSlow):
                self._too_slow.append(model)
            self._skip(model, f"{what}{error}")
            return
        self._trials.append(trial)
        if not keeps_up(_measurement(trial, self.clips), self.limits):
            self._too_slow.append(model)

    def _pass(self, trial: _Trial) -> None:
        self.tell(f"{trial.candidate}, pass {trial.passes + 1}")
        began_s = self.clock()
        process = self.start(trial.candidate, self._left_s)
        trial.load_s = trial.load_s or process.load_s
        try:
            for index, clip in enumerate(self.clips, start=1):
                if self._left_s <= 0:
                    raise AgentError("time ran out before the last clip")
                trial.answers[index - 1].append(process.transcribe(load_pcm(clip), clip.language, self._left_s))
                if not trial.passes and index >= _CLIPS_TO_JUDGE:
                    wall_s = sum(answers[0].wall_s for answers in trial.answers[:index])
                    rtf = wall_s / sum(clip.duration_s for clip in self.clips[:index])
                    if rtf > HOPELESS_RTF and any(one.rtf_p95 < rtf for one in self._measurements()):
                        raise _TooSlow(f"given up after {index} clips at a real-time factor of {rtf:.1f}")
        finally:
            process.close()
        trial.passes += 1
        trial.pass_s = self.clock() - began_s

    def _skip(self, model: Model, why: str) -> None:
        # Check the time after a failure, too: a lack of time may be its cause.
        self._out_of_time |= self._left_s < _LEAST_LEFT_S
        self._skipped.append(Skipped(engine_for(model), model.name, why))
        self.tell(f"{engine_for(model)} {model.name}: {why}")


def _measurement(trial: _Trial, clips: Sequence[Clip]) -> Measurement:
    """Return the figures over all clips, from the best pass of each clip."""
    wall_s = [min(answer.wall_s for answer in answers) for answers in trial.answers]
    cpu_s = [min(answer.cpu_s for answer in answers) for answers in trial.answers]
    # The same samples give the same words in every pass.
    scores = [score(clip.text, answers[0].text) for clip, answers in zip(clips, trial.answers, strict=True)]
    return Measurement(
        candidate=trial.candidate,
        size=trial.model.size,
        english_only=trial.model.languages == "en",
        words=sum(one.expected for one in scores),
        errors=sum(one.errors for one in scores),
        rtf_p95=percentile([took_s / clip.duration_s for took_s, clip in zip(wall_s, clips, strict=True)], 0.95),
        latency_p50_s=statistics.median(wall_s),
        cpu_per_speech=sum(cpu_s) / sum(clip.duration_s for clip in clips),
        peak_mb=max(answer.peak_rss_bytes for answers in trial.answers for answer in answers) // 1_000_000,
        load_s=trial.load_s,
        passes=trial.passes,
    )
