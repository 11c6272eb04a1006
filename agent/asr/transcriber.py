"""The transcribe stage: utterances in, words out. Decoding begins speculatively, before the pause is over.

listen thread      Paused ──▶ queue      Resumed ──▶ take out      Ended ──▶ queue
                      │                     │                        │
transcribe thread     └─▶ decode, hold it   └─▶ forget it            └─▶ publish the held words at once, or decode
                                                                         now, with the others in the queue
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeGuard

from agent.asr import Engine
from agent.asr.pace import EnginePace, SpeculationBudget
from agent.asr.transcript import Transcript
from agent.audio.frames import NS_PER_S, Utterance
from agent.channel import Channel, Overflow
from agent.errors import EngineError
from agent.segmenter import Ended, Paused, Resumed, SegmenterEvent
from agent.worker import attempt

log = logging.getLogger(__name__)

LONGEST_REST_S: Final = 10.0
"""Between two utterances, while the board has to cool down."""
REMEMBERED: Final = 64
"""Utterances with a reported outcome: more than can be in work at the same time."""


class NoTimeError(EngineError):
    """The engine was not asked at all: other utterances were first, or the agent stops."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The present work of the engine."""

    duration_s: float
    """Length of the utterance, or of all utterances of the batch together."""
    since_s: float
    """Monotonic time of its beginning."""
    owed: tuple[Utterance, ...] = ()
    """The utterances of this work, and of the rest of its batch, that have no words yet and are in no queue."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The finished utterances that wait for the engine."""

    age_s: float
    """How long the oldest has waited; 0 for an empty queue."""
    speech_s: float
    """Their total length."""


@dataclass(frozen=True, slots=True)
class _Job:
    utterance: Utterance
    is_final: bool
    """False for a speculative one."""
    submitted_ns: int


@dataclass(frozen=True, slots=True)
class _Task:
    """Work for the transcribe thread between two utterances."""

    work: Callable[[], object]
    answer: "Future[Any]"


class Recipient(Protocol):
    """Receives the outcome of every utterance, one call at a time. No call comes after the end of `Transcriber.run`."""

    def recognised(
        self, utterance: Utterance, transcript: Transcript, queue_s: float, wait_s: float, *, late: bool = False
    ) -> None:
        """Take the words of an utterance. Called from the transcribe thread.

        Args:
            utterance: The utterance.
            transcript: Its words.
            queue_s: Seconds that it waited for the engine after its end; 0 if it was decoded inside the pause.
            wait_s: Seconds from the end of the pause to the words.
            late: The engine had no time for it when it was said, and took it from the spool.
        """

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Take the words of an utterance that may continue. Called from the transcribe thread."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Take an utterance on which the engine failed. Called from any thread."""

    def dropped(self, utterance: Utterance) -> None:
        """Take an utterance that was dropped for newer ones. Called from any thread."""


class Transcriber:
    """Owns the engine and its queue of at most `capacity` utterances.

    The listen thread calls `heard` and `close`; `run` is the transcribe thread. The outcome of an utterance is reported
    once: an engine may finish an utterance at the moment at which it is given up.

    Args:
        engine: Is closed at the end of `run`.
        recipient: Receives the outcomes.
        capacity: Utterances in the queue.
        overflow: The policy of a full queue.
        keep: Stores an utterance for which there is no room; returns False if it cannot. Then it is dropped.
        speculative: Allows speculative decoding, while no utterance waits and the waste is small.
    """

    def __init__(
        self,
        engine: Engine,
        recipient: Recipient,
        capacity: int,
        overflow: Overflow,
        keep: Callable[[Utterance], bool] = lambda _utterance: False,
        *,
        speculative: bool = True,
    ) -> None:
        self._engine = engine
        self._recipient = recipient
        self._capacity = capacity
        self._keep = keep
        self._jobs: Channel[_Job | _Task] = Channel(capacity, overflow, self._crowded_out)
        self.speculative = speculative
        """Allows speculative decoding. Any thread may change it."""
        self.duty = 1.0
        """Share of the time in which the engine may work; less than 1 cools the board. Any thread may change it."""
        self.pace = EnginePace()
        """How fast and how busy the engine is, without the utterances from the spool."""
        self.under_way: UnderWay | None = None
        """The present work; None while the engine is idle. Any thread may read."""
        self._budget = SpeculationBudget()
        self._wanted: _Job | None = None
        """The last speculative job, unless speech resumed after it."""
        self._held: tuple[Utterance, Transcript] | None = None
        """The words of the last speculative job."""
        self._reporting = threading.Lock()
        self._reported: deque[str] = deque(maxlen=REMEMBERED)
        self._forgotten_ns = float("-inf")

    # Called by the listen thread.

    def heard(self, event: SegmenterEvent) -> None:
        """Queue a pause for speculative decoding, and an utterance for its words; a pause is void if speech resumes."""
        match event:
            case Paused(utterance) if self.speculative and not len(self._jobs) and self._budget.allows:
                self._wanted = _Job(utterance, is_final=False, submitted_ns=time.monotonic_ns())
                self._jobs.put(self._wanted)
            case Resumed():
                self._wanted = None
                self._jobs.take_out(lambda job: isinstance(job, _Job) and not job.is_final)
            case Ended(utterance):
                self._jobs.put(_Job(utterance, is_final=True, submitted_ns=time.monotonic_ns()))
            case _:
                pass

    def close(self) -> None:
        """End the input; the utterances in the queue are still transcribed."""
        self._jobs.close()

    # The transcribe thread.

    def run(self) -> None:
        """Transcribe until the queue is closed and empty, then free the engine."""
        try:
            while (job := self._jobs.get()) is not None:
                if isinstance(job, _Task):
                    self._run_task(job)
                    continue
                began_s = time.monotonic()
                if not job.is_final:
                    self._decode_speculatively(job)
                elif not self._publish_held(job):
                    others = self._jobs.take(self._engine.batch_size - 1, _is_final)
                    self._decode([job, *(other for other in others if isinstance(other, _Job))], time.monotonic_ns())
                self.under_way = None
                if self.duty < 1.0 and not self._jobs.closed:
                    worked_s = time.monotonic() - began_s
                    time.sleep(min(LONGEST_REST_S, worked_s * (1.0 / self.duty - 1.0)))
        finally:
            self._engine.close()

    def _decode_speculatively(self, job: _Job) -> None:
        self._discard_held()
        # It may have been withdrawn since it was taken from the queue, and the discarded words may be the last waste.
        if job is not self._wanted or not self._budget.allows:
            return
        utterance = job.utterance
        self.under_way = UnderWay(utterance.duration_s, time.monotonic())
        try:
            (transcript,) = self._engine.transcribe([utterance])
        except EngineError as error:
            # The finished utterance follows, and is tried again then.
            log.debug("speculative decoding of %s: %s", utterance.id, error)
            return
        self._held = (utterance, transcript)
        self.pace.inferred(time.monotonic(), transcript.inference_s, utterance.duration_s)
        self.report(utterance, partial(self._recipient.partial, utterance, transcript), is_end=False)

    def _publish_held(self, job: _Job) -> bool:
        """Publish the held words if they are of exactly this utterance; return whether they are."""
        if self._held is None:
            return False
        utterance, transcript = self._held
        # More speech makes an utterance longer, and never shorter.
        if utterance.id != job.utterance.id or len(utterance.pcm) != len(job.utterance.pcm):
            self._discard_held()
            return False
        self._held = None
        self._budget.spent(transcript.inference_s, useful=True)
        # If decoding went on after the end of the pause, the rest of it counts.
        waited_s = _s_since(job.submitted_ns)
        self.report(job.utterance, partial(self._recipient.recognised, job.utterance, transcript, 0.0, waited_s))
        return True

    def _discard_held(self) -> None:
        if self._held:
            self._budget.spent(self._held[1].inference_s, useful=False)
            self._held = None

    def _decode(self, jobs: Sequence[_Job], taken_ns: int, rest: Sequence[_Job] = ()) -> None:
        """Transcribe `jobs` at once; after a failure of several, one by one. `rest` of their batch comes later."""
        utterances = [job.utterance for job in jobs]
        owed = (*utterances, *(job.utterance for job in rest))
        self.under_way = UnderWay(sum(one.duration_s for one in utterances), time.monotonic(), owed)
        try:
            transcripts = self._engine.transcribe(utterances)
        except EngineError as error:
            if len(jobs) == 1:
                self.report(utterances[0], partial(self._recipient.failed, utterances[0], error))
                return
            log.warning(f"cannot transcribe {len(jobs)} utterances together ({error}); transcribing each alone")
            for number, job in enumerate(jobs, start=1):
                self._decode([job], taken_ns, jobs[number:])
            return
        for job, transcript in zip(jobs, transcripts, strict=True):
            self._budget.spent(transcript.inference_s, useful=True)
            self.pace.inferred(time.monotonic(), transcript.inference_s, job.utterance.duration_s)
            queue_s = (taken_ns - job.submitted_ns) / NS_PER_S
            outcome = partial(
                self._recipient.recognised, job.utterance, transcript, queue_s, _s_since(job.submitted_ns)
            )
            self.report(job.utterance, outcome)

    def _run_task(self, task: _Task) -> None:
        if not task.answer.set_running_or_notify_cancel():
            return
        # The thread that waits for the answer gets the exception, and this one goes on.
        if error := attempt(lambda: task.answer.set_result(task.work())):
            task.answer.set_exception(error)
        self.under_way = None

    # Called by other threads, for work between two utterances.

    def exchange(self, engine: Engine, timeout_s: float | None = None) -> None:
        """Continue with `engine` after the present utterance, and free the old one. Called from any other thread.

        Without `timeout_s` it waits for the present inference, which has its own limit.

        Raises:
            EngineError: that was not possible in time, and `engine` is freed instead.
        """

        def work() -> None:
            self._discard_held()
            old, self._engine = self._engine, engine
            self.pace.rtf = 0.0  # measured with the old engine
            old.close()

        try:
            self._between(work, timeout_s, self._jobs.put_first)
        except EngineError:
            engine.close()
            raise

    def probe(self, utterance: Utterance, timeout_s: float) -> Transcript:
        """Transcribe `utterance` between two others, and return its words to the caller only.

        Called from any other thread.

        Raises:
            EngineError: the engine failed.
            NoTimeError: it had no time.
        """
        if self.waiting >= self._capacity:
            raise NoTimeError("the engine is behind: its queue is full")

        def work() -> Transcript:
            self.under_way = UnderWay(utterance.duration_s, time.monotonic())
            return self._engine.transcribe([utterance])[0]

        transcript: Transcript = self._between(work, timeout_s, self._jobs.put)
        return transcript

    def _between(self, work: Callable[[], object], timeout_s: float | None, put: Callable[[_Task], bool]) -> Any:
        """Let the transcribe thread do `work`; wait for its result, or raise its exception."""
        task = _Task(work, Future())
        if not put(task):
            raise NoTimeError("the agent is stopping")
        try:
            return task.answer.result(timeout_s)
        except TimeoutError as error:
            if not task.answer.cancel():
                # It has begun at this very moment; an inference has its own limit.
                return task.answer.result()
            raise NoTimeError(f"the engine had no time within {timeout_s:.0f} s") from error
        except CancelledError as error:
            raise NoTimeError("the engine is behind: its queue was full") from error

    # Outcomes, and the queue. Any thread may call and read these.

    def report(self, utterance: Utterance, outcome: Callable[[], None], *, is_end: bool = True) -> None:
        """Call `outcome`, unless an outcome of `utterance` was reported before, or it is purged.

        `is_end` is False for a report before another one of the same utterance.
        """
        with self._reporting:
            if utterance.started_ns < self._forgotten_ns:
                log.info(f"{utterance.id}: purged")
            elif utterance.id in self._reported:
                log.info(f"{utterance.id}: its outcome was reported before")
            else:
                if is_end:
                    self._reported.append(utterance.id)
                outcome()

    def forget(self) -> int:
        """Report no utterance that began before now; return how many waited.

        When it returns, no report of an earlier utterance is under way.
        """
        with self._reporting:
            self._forgotten_ns = time.monotonic_ns()
        return len(self._take_waiting(0.0))

    def set_aside(self, older_than_s: float) -> None:
        """Keep or drop the utterances that have waited longer than that."""
        for utterance in self._take_waiting(older_than_s):
            self._set_aside(utterance)

    def abandon(self) -> None:
        """The agent stops now: keep the queue, and report the utterances in work as failed. Called after `close`.

        The utterances in work are not kept: an engine that hangs on one would hang on it again.
        """
        self.set_aside(0.0)
        error = EngineError("the engine was not done with it when the agent had to stop")
        for utterance in self.under_way.owed if self.under_way else ():
            self.report(utterance, partial(self._recipient.failed, utterance, error))

    @property
    def queue(self) -> Queue:
        """The finished utterances in the queue."""
        jobs = [job for job in self._jobs.snapshot() if _is_final(job)]
        age_s = max((_s_since(job.submitted_ns) for job in jobs), default=0.0)
        return Queue(age_s, sum(job.utterance.duration_s for job in jobs))

    @property
    def waiting(self) -> int:
        """The length of the queue."""
        return len(self._jobs)

    @property
    def engine_pid(self) -> int | None:
        """The process in which the engine runs; None for this process, or between two engine processes."""
        pid: int | None = getattr(self._engine, "pid", None)
        return pid

    def _take_waiting(self, older_than_s: float) -> list[Utterance]:
        before_ns = time.monotonic_ns() - round(older_than_s * NS_PER_S)
        taken = self._jobs.take_out(lambda job: _is_final(job) and job.submitted_ns < before_ns)
        return [job.utterance for job in taken if isinstance(job, _Job)]

    def _crowded_out(self, job: _Job | _Task) -> None:
        if isinstance(job, _Task):
            job.answer.cancel()
        elif job.is_final:
            self._set_aside(job.utterance)

    def _set_aside(self, utterance: Utterance) -> None:
        def keep_or_drop() -> None:
            if not self._keep(utterance):
                self._reported.append(utterance.id)
                self._recipient.dropped(utterance)

        self.report(utterance, keep_or_drop, is_end=False)


def _is_final(job: _Job | _Task) -> TypeGuard[_Job]:
    return isinstance(job, _Job) and job.is_final


def _s_since(ns: int) -> float:
    return (time.monotonic_ns() - ns) / NS_PER_S
