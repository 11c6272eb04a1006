"""The transcribe stage: utterances in, words out. Decoding begins speculatively, before the pause is over.

listen thread      Paused ──▶ speculate()   Resumed ──▶ withdraw()   Ended ──▶ submit()
                      │                          │                      │
transcribe thread     └─▶ decode, hold it        └─▶ forget it          └─▶ publish at once, or decode now,
                                                                            with those that wait, if the engine can
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeGuard

from agent.asr import Engine, batch_size, process_id, transcribe_many
from agent.asr.pace import EnginePace, SpeculationBudget
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Channel, Overflow
from agent.errors import EngineError
from agent.segmenter import Ended, Paused, Resumed, SegmenterEvent
from agent.worker import attempt

log = logging.getLogger(__name__)

NS_PER_S: Final = 1_000_000_000
LONGEST_REST_S: Final = 10.0
"""Between two utterances, where the board has to cool down."""
REMEMBERED: Final = 64
"""Utterances whose end was reported: more than can be in work at the same time."""


class NoTimeError(EngineError):
    """The engine was not asked at all: others were first, or the agent stops."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """An utterance with its words."""

    utterance: Utterance
    transcript: Transcript
    queue_s: float
    """Seconds the finished utterance waited before the engine took it; 0 if it was decoded inside the pause."""
    wait_s: float
    """Seconds from the end of the pause to the words; speculative decoding inside the pause does not count."""
    late: bool = False
    """The engine had no time for it when it was said, and it was kept until there was."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What the engine is working on."""

    duration_s: float
    """Length of the utterance, or of all that are transcribed at once together."""
    since_s: float
    """Monotonic time at which it was begun."""
    owed: tuple[Utterance, ...] = ()
    """Of it, and of those that were taken with it, what has no words yet, and is waiting nowhere else."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The finished utterances that wait for the engine."""

    age_s: float
    """How long the oldest has waited; 0 if none waits."""
    speech_s: float
    """Their length, added up."""


@dataclass(frozen=True, slots=True)
class _Job:
    utterance: Utterance
    is_final: bool
    """False for a speculative one."""
    submitted_ns: int


@dataclass(frozen=True, slots=True)
class EngineTask:
    """Work for the engine between two utterances."""

    work: Callable[[], Transcript | None]
    utterance: Utterance | None
    """The utterance that the engine is to transcribe, if the work is that."""
    answer: "Future[Transcript | None]"


class Recipient(Protocol):
    """Receives the outcome of every utterance, one call at a time. Nothing comes after `Transcriber.run` has ended."""

    def recognised(self, recognition: Recognition) -> None:
        """Called from the transcribe thread: here are the words."""

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Called from the transcribe thread: these are the words, should no more follow."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Called from any thread: the engine failed on this one; the next is tried all the same."""

    def dropped(self, utterance: Utterance) -> None:
        """Called from any thread: this one had to make room for newer ones."""


def _drop_all(_utterance: Utterance) -> bool:
    return False


class Transcriber:
    """Owns the engine and its queue of at most `capacity` utterances.

    `heard` (or `speculate`, `withdraw`, `submit`) and `close` are called from the listen thread, `run` is the
    transcribe thread. The outcome of an utterance is reported once: an engine may be done just when an utterance is
    given up.

    Args:
        engine: Is closed at the end of `run`.
        recipient: Receives the outcomes.
        capacity: Utterances in the queue.
        overflow: What happens when it is full.
        keep: Stores an utterance for which there is no room; returns False if it cannot. Then it is dropped.
        speculative: Whether speculative decoding is allowed, while no utterance waits and the waste is small.
    """

    def __init__(
        self,
        engine: Engine,
        recipient: Recipient,
        capacity: int,
        overflow: Overflow,
        keep: Callable[[Utterance], bool] = _drop_all,
        *,
        speculative: bool = True,
    ) -> None:
        self._engine = engine
        self._recipient = recipient
        self._capacity = capacity
        self._keep = keep
        self._jobs: Channel[_Job | EngineTask] = Channel(capacity, overflow, self._crowded_out)
        self.speculative = speculative
        """Whether speculative decoding is allowed. Any thread may change it."""
        self.duty = 1.0
        """Share of the time in which the engine may work; less lets the board cool down. Any thread may change it."""
        self.pace = EnginePace()
        """How fast and how busy the engine is; utterances that were kept until there was time do not count."""
        self._budget = SpeculationBudget()
        self._wanted: _Job | None = None
        """The last speculative job, as long as no speech has overtaken it."""
        self._held: Recognition | None = None
        self.under_way: UnderWay | None = None
        """What is being transcribed; None while nothing is. Any thread may read."""
        self._reporting = threading.Lock()
        self._reported: deque[str] = deque(maxlen=REMEMBERED)
        self._forgotten_ns = float("-inf")

    def heard(self, event: SegmenterEvent) -> None:
        """Do what an event of the segmenter asks for."""
        match event:
            case Paused(utterance):
                self.speculate(utterance)
            case Resumed():
                self.withdraw()
            case Ended(utterance):
                self.submit(utterance)
            case _:
                pass

    def speculate(self, utterance: Utterance) -> None:
        """The utterance may be over: begin on it, if nothing else waits."""
        if self.speculative and not len(self._jobs) and self._budget.allows:
            self._wanted = _Job(utterance, is_final=False, submitted_ns=time.monotonic_ns())
            self._jobs.put(self._wanted)

    def withdraw(self) -> None:
        """Speech resumed: the last speculative job is void, and is taken out of the queue."""
        self._wanted = None
        self._jobs.take_out(lambda job: isinstance(job, _Job) and not job.is_final)

    def submit(self, utterance: Utterance) -> None:
        """The utterance is over: its words are wanted."""
        self._jobs.put(_Job(utterance, is_final=True, submitted_ns=time.monotonic_ns()))

    def exchange(self, engine: Engine, timeout_s: float | None = None) -> None:
        """Go on with `engine`, from between two utterances on; the old one is freed. Called from any other thread.

        Without `timeout_s` it waits for the inference that is under way, which has a limit of its own.

        Raises:
            EngineError: that was not possible in time, and `engine` is freed instead.
        """

        def work() -> None:
            self._discard_held()
            old, self._engine = self._engine, engine
            self.pace.rtf = 0.0  # measurements of the old engine say nothing about the new one
            old.close()

        try:
            self._between(EngineTask(work, None, Future()), timeout_s, self._jobs.put_first)
        except EngineError:
            engine.close()
            raise

    def probe(self, utterance: Utterance, timeout_s: float) -> Transcript:
        """Transcribe `utterance` between two others, and report it to the caller only. Called from any other thread.

        Raises:
            EngineError: the engine failed.
            NoTimeError: it had no time.
        """
        if self.waiting >= self._capacity:
            raise NoTimeError("the engine is behind: its queue is full")
        task = EngineTask(lambda: self._engine.transcribe(utterance), utterance, Future())
        transcript = self._between(task, timeout_s, self._jobs.put)
        if transcript is None:
            raise EngineError("nothing was transcribed")
        return transcript

    def _between(
        self, task: EngineTask, timeout_s: float | None, put: Callable[[EngineTask], bool]
    ) -> Transcript | None:
        if not put(task):
            raise NoTimeError("the agent is stopping")
        try:
            return task.answer.result(timeout_s)
        except TimeoutError as error:
            if not task.answer.cancel():
                # It has begun at this very moment; an inference has a deadline of its own.
                return task.answer.result()
            raise NoTimeError(f"the engine had no time within {timeout_s:.0f} s") from error
        except CancelledError as error:
            raise NoTimeError("the engine is behind: its queue was full") from error

    def report(self, utterance: Utterance, tell: Callable[[], None], *, is_end: bool = True) -> None:
        """Call `tell`, unless the outcome of `utterance` was reported before, or it is purged. Called from any thread.

        `is_end` is False for a report that another one of the same utterance follows.
        """
        with self._reporting:
            if utterance.started_ns < self._forgotten_ns:
                log.info(f"{utterance.id}: purged")
            elif utterance.id in self._reported:
                log.info(f"{utterance.id}: its outcome was reported before")
            else:
                if is_end:
                    self._reported.append(utterance.id)
                tell()

    def forget(self) -> int:
        """Report nothing more of what was said until now; return how many utterances waited. Called from any thread.

        When it returns, no report of what was said before is under way.
        """
        with self._reporting:
            self._forgotten_ns = time.monotonic_ns()
        return len(self._take_waiting(0.0))

    def set_aside(self, older_than_s: float) -> None:
        """Keep or drop what has waited longer than that. Called from any other thread."""
        for utterance in self._take_waiting(older_than_s):
            self._set_aside(utterance)

    def abandon(self) -> None:
        """The agent stops now: keep what waits, and report what is in work as failed. Called after `close`.

        What is in work is not kept, since an engine that hangs on it would hang on it again.
        """
        self.set_aside(0.0)
        error = EngineError("the engine was not done with it when the agent had to stop")
        for utterance in self.under_way.owed if self.under_way else ():
            self._failed(utterance, error)

    @property
    def queue(self) -> Queue:
        """How much waits, and for how long; any thread may ask."""
        jobs = [job for job in self._jobs.snapshot() if _is_final(job)]
        oldest_ns = min((job.submitted_ns for job in jobs), default=None)
        age_s = 0.0 if oldest_ns is None else (time.monotonic_ns() - oldest_ns) / NS_PER_S
        return Queue(age_s, sum(job.utterance.duration_s for job in jobs))

    def _take_waiting(self, older_than_s: float) -> list[Utterance]:
        before_ns = time.monotonic_ns() - round(older_than_s * NS_PER_S)
        taken = self._jobs.take_out(lambda job: _is_final(job) and job.submitted_ns < before_ns)
        return [job.utterance for job in taken if isinstance(job, _Job)]

    def close(self) -> None:
        """No more utterances will come; what waits is still transcribed."""
        self._jobs.close()

    @property
    def waiting(self) -> int:
        """Utterances in the queue."""
        return len(self._jobs)

    @property
    def engine_pid(self) -> int | None:
        """The process in which the engine runs; None for one in this process. Any thread may ask."""
        return process_id(self._engine)

    def run(self) -> None:
        """Transcribe until the queue is closed and empty, then free the engine."""
        try:
            for job in self._jobs:
                if isinstance(job, EngineTask):
                    self._run_task(job)
                    continue
                began_s = time.monotonic()
                if not job.is_final:
                    self._decode_speculatively(job)
                elif not self._came_true(job):
                    self._decode([job, *self._also_waiting()])
                self.under_way = None
                self._rest(time.monotonic() - began_s)
        finally:
            self._engine.close()

    def _rest(self, worked_s: float) -> None:
        """Let the board cool, where `duty` asks for it; not when the agent is stopping."""
        if self.duty < 1.0 and not self._jobs.closed:
            time.sleep(min(LONGEST_REST_S, worked_s * (1.0 / self.duty - 1.0)))

    def _decode_speculatively(self, job: _Job) -> None:
        self._discard_held()
        # It may have been withdrawn since it was taken from the queue, and the one just discarded one too many.
        if job is not self._wanted or not self._budget.allows:
            return
        utterance = job.utterance
        self._begin([utterance])
        try:
            transcript = self._engine.transcribe(utterance)
        except EngineError as error:
            # The finished utterance follows, and is tried again then.
            log.debug("speculative decoding of %s: %s", utterance.id, error)
            return
        self._held = Recognition(utterance, transcript, queue_s=0.0, wait_s=0.0)
        self.pace.inferred(time.monotonic(), transcript.inference_s, utterance.duration_s)
        self.report(utterance, lambda: self._recipient.partial(utterance, transcript), is_end=False)

    def _came_true(self, job: _Job) -> bool:
        """Publish the held words if they are of exactly this utterance; False if not."""
        held, self._held = self._held, None
        if held is None:
            return False
        # More speech makes an utterance longer, and never shorter.
        useful = held.utterance.id == job.utterance.id and len(held.utterance.pcm) == len(job.utterance.pcm)
        self._budget.spent(held.transcript.inference_s, useful=useful)
        if useful:
            # If decoding went on when the pause was over, the rest of it was waited for.
            waited_s = (time.monotonic_ns() - job.submitted_ns) / NS_PER_S
            self._recognised(replace(held, utterance=job.utterance, wait_s=waited_s))
        return useful

    def _also_waiting(self) -> list[_Job]:
        """Take the utterances that can be transcribed at once with the one before them."""
        taken = self._jobs.take(batch_size(self._engine) - 1, _is_final)
        return [job for job in taken if isinstance(job, _Job)]

    def _decode(self, jobs: Sequence[_Job]) -> None:
        taken_ns = time.monotonic_ns()
        utterances = [job.utterance for job in jobs]
        if len(jobs) > 1:
            self._begin(utterances, owed=utterances)
            try:
                transcripts = transcribe_many(self._engine, utterances)
            except EngineError as error:
                log.warning(f"{len(jobs)} utterances are transcribed one by one, as that failed at once: {error}")
            else:
                for job, transcript in zip(jobs, transcripts, strict=True):
                    self._decoded(job, transcript, taken_ns)
                return
        for number, job in enumerate(jobs):
            self._begin([job.utterance], owed=utterances[number:])
            try:
                transcript = self._engine.transcribe(job.utterance)
            except EngineError as error:
                self._failed(job.utterance, error)
            else:
                self._decoded(job, transcript, taken_ns)

    def _begin(self, utterances: Sequence[Utterance], owed: Sequence[Utterance] = ()) -> None:
        duration_s = sum(utterance.duration_s for utterance in utterances)
        self.under_way = UnderWay(duration_s, time.monotonic(), tuple(owed))

    def _decoded(self, job: _Job, transcript: Transcript, taken_ns: int) -> None:
        self._budget.spent(transcript.inference_s, useful=True)
        self.pace.inferred(time.monotonic(), transcript.inference_s, job.utterance.duration_s)
        queue_s = (taken_ns - job.submitted_ns) / NS_PER_S
        wait_s = (time.monotonic_ns() - job.submitted_ns) / NS_PER_S
        self._recognised(Recognition(job.utterance, transcript, queue_s, wait_s))

    def _run_task(self, task: EngineTask) -> None:
        if not task.answer.set_running_or_notify_cancel():
            return
        if task.utterance:
            self._begin([task.utterance])
        # The thread that waits for the answer gets the exception, and this one goes on.
        if error := attempt(lambda: task.answer.set_result(task.work())):
            task.answer.set_exception(error)
        self.under_way = None

    def _discard_held(self) -> None:
        if self._held:
            self._budget.spent(self._held.transcript.inference_s, useful=False)
            self._held = None

    # Outcomes.

    def _recognised(self, recognition: Recognition) -> None:
        self.report(recognition.utterance, lambda: self._recipient.recognised(recognition))

    def _failed(self, utterance: Utterance, error: EngineError) -> None:
        self.report(utterance, lambda: self._recipient.failed(utterance, error))

    def _crowded_out(self, job: _Job | EngineTask) -> None:
        if isinstance(job, EngineTask):
            job.answer.cancel()
        elif job.is_final:
            self._set_aside(job.utterance)

    def _set_aside(self, utterance: Utterance) -> None:
        def keep_or_drop() -> None:
            if not self._keep(utterance):
                self._reported.append(utterance.id)
                self._recipient.dropped(utterance)

        self.report(utterance, keep_or_drop, is_end=False)


def _is_final(job: _Job | EngineTask) -> TypeGuard[_Job]:
    return isinstance(job, _Job) and job.is_final
