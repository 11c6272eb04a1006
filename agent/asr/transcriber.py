"""The transcribe stage: utterances in, words out; and the work begins before the pause is over.

listen thread      Paused ──▶ draft()     Resumed ──▶ withdraw()      Ended ──▶ submit()
                      │                        │                         │
transcribe thread     └─▶ decode, keep it      └─▶ forget it             └─▶ publish at once, or decode now,
                                                                             with those that wait, if the engine can
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Protocol

from agent.asr import Engine, batch_size, process_id, transcribe_many
from agent.asr.speculative import DraftBudget
from agent.audio.frames import Utterance
from agent.channel import Channel, Overflow
from agent.errors import EngineError
from agent.messages.transcript import Transcript
from agent.segmenter import Ended, Paused, Resumed, SegmenterEvent
from agent.worker import attempt

log = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000
LONGEST_REST_S = 10.0
"""Between two utterances, where the board has to cool down."""


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
    """Seconds from the end of the pause to the words; what the draft spent inside the pause does not count."""
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
    is_draft: bool
    submitted_ns: int


@dataclass(frozen=True, slots=True)
class _Errand:
    """Something to be done with the engine, between two utterances."""

    work: Callable[[], Transcript | None]
    utterance: Utterance | None
    """What the engine is to transcribe, if that is what it is about."""
    answer: "Future[Transcript | None]"


class Recipient(Protocol):
    """Is told what became of every utterance. Nothing is told after `Transcriber.run` has returned."""

    def recognised(self, recognition: Recognition) -> None:
        """Called from the transcribe thread: here are the words."""

    def drafted(self, utterance: Utterance, transcript: Transcript) -> None:
        """Called from the transcribe thread: this is what was understood, should no more follow."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Called from the transcribe thread: the engine failed on this one; the next is tried all the same."""

    def dropped(self, utterance: Utterance) -> None:
        """Called from the listen thread: this one had to make room for newer ones."""


class Transcriber:
    """Owns the engine and its queue of at most `capacity` utterances.

    `heard` (or `draft`, `withdraw`, `submit`) and `close` are called from the listen thread, `run` is the transcribe
    thread.
    `eager` allows drafts, as long as no utterance waits and not too many drafts were for nothing.
    """

    def __init__(
        self, engine: Engine, recipient: Recipient, capacity: int, overflow: Overflow, *, eager: bool = True
    ) -> None:
        self._engine = engine
        self._recipient = recipient
        self._capacity = capacity
        self._jobs: Channel[_Job | _Errand] = Channel(capacity, overflow, self._dropped)
        self.eager = eager
        """Whether drafts are decoded at all. Any thread may change it."""
        self.duty = 1.0
        """Share of the time in which the engine may work; less lets the board cool down. Any thread may change it."""
        self._budget = DraftBudget()
        self._wanted: _Job | None = None
        """The last draft that was asked for, as long as no speech has overtaken it."""
        self._held: Recognition | None = None
        self.under_way: UnderWay | None = None
        """What is being transcribed; None while nothing is. Any thread may read."""

    def heard(self, event: SegmenterEvent) -> None:
        """Do what an event of the segmenter asks for."""
        match event:
            case Paused(utterance):
                self.draft(utterance)
            case Resumed():
                self.withdraw()
            case Ended(utterance):
                self.submit(utterance)
            case _:
                pass

    def draft(self, utterance: Utterance) -> None:
        """The utterance may be over: begin on it, if nothing else waits."""
        if self.eager and not len(self._jobs) and self._budget.allows:
            self._wanted = _Job(utterance, is_draft=True, submitted_ns=time.monotonic_ns())
            self._jobs.put(self._wanted)

    def withdraw(self) -> None:
        """Speech resumed: the last draft is void, and if it still waits, nothing more waits for its sake."""
        self._wanted = None
        self._jobs.take_out(lambda job: isinstance(job, _Job) and job.is_draft)

    def submit(self, utterance: Utterance) -> None:
        """The utterance is over: its words are wanted."""
        self._jobs.put(_Job(utterance, is_draft=False, submitted_ns=time.monotonic_ns()))

    def exchange(self, engine: Engine, timeout_s: float | None = None) -> None:
        """Go on with `engine`, from between two utterances on; the old one is freed. Called from any other thread.

        Without `timeout_s` it waits for the inference that is under way, which has a limit of its own.

        Raises:
            EngineError: that was not possible in time, and `engine` is freed instead.
        """

        def work() -> None:
            self._discard_held()
            old, self._engine = self._engine, engine
            old.close()

        try:
            self._between(_Errand(work, None, Future()), timeout_s, self._jobs.put_first)
        except EngineError:
            engine.close()
            raise

    def probe(self, utterance: Utterance, timeout_s: float) -> Transcript:
        """Transcribe `utterance` between two others, and tell nobody else. Called from any other thread.

        Raises:
            EngineError: the engine failed.
            NoTimeError: it had no time.
        """
        if self.waiting >= self._capacity:
            raise NoTimeError("the engine is behind: its queue is full")
        errand = _Errand(lambda: self._engine.transcribe(utterance), utterance, Future())
        transcript = self._between(errand, timeout_s, self._jobs.put)
        if transcript is None:
            raise EngineError("nothing was transcribed")
        return transcript

    def _between(self, errand: _Errand, timeout_s: float | None, put: Callable[[_Errand], bool]) -> Transcript | None:
        if not put(errand):
            raise NoTimeError("the agent is stopping")
        try:
            return errand.answer.result(timeout_s)
        except TimeoutError as error:
            if not errand.answer.cancel():
                # It has begun at this very moment; an inference has a deadline of its own.
                return errand.answer.result()
            raise NoTimeError(f"the engine had no time within {timeout_s:.0f} s") from error
        except CancelledError as error:
            raise NoTimeError("the engine is behind: its queue was full") from error

    @property
    def queue(self) -> Queue:
        """How much waits, and for how long; any thread may ask."""
        jobs = [job for job in self._jobs.snapshot() if isinstance(job, _Job) and _is_final(job)]
        oldest_ns = min((job.submitted_ns for job in jobs), default=None)
        age_s = 0.0 if oldest_ns is None else (time.monotonic_ns() - oldest_ns) / NS_PER_S
        return Queue(age_s, sum(job.utterance.duration_s for job in jobs))

    def set_aside(self, older_than_s: float) -> list[Utterance]:
        """Take out what has waited longer than that, for somebody else to keep. Called from any other thread."""
        before_ns = time.monotonic_ns() - round(older_than_s * NS_PER_S)
        taken = self._jobs.take_out(
            lambda job: isinstance(job, _Job) and _is_final(job) and job.submitted_ns < before_ns
        )
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
                if isinstance(job, _Errand):
                    self._run_errand(job)
                    continue
                began_s = time.monotonic()
                if job.is_draft:
                    self._decode_draft(job)
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

    def _decode_draft(self, job: _Job) -> None:
        self._discard_held()
        # It may have been withdrawn since it was taken from the queue, and what was just discarded one too many.
        if job is not self._wanted or not self._budget.allows:
            return
        utterance = job.utterance
        self._begin([utterance])
        try:
            transcript = self._engine.transcribe(utterance)
        except EngineError as error:
            # The utterance itself will follow, and is tried again then.
            log.debug("draft of %s: %s", utterance.id, error)
            return
        self._held = Recognition(utterance, transcript, queue_s=0.0, wait_s=0.0)
        self._recipient.drafted(utterance, transcript)

    def _came_true(self, job: _Job) -> bool:
        """Publish the words of the draft that turned out to be this utterance; False if there are none."""
        held, self._held = self._held, None
        if held is None:
            return False
        useful = _same(held.utterance, job.utterance)
        self._budget.spent(held.transcript.inference_s, useful=useful)
        if useful:
            # Where the draft was still being decoded when the pause was over, the rest of it was waited for.
            waited_s = (time.monotonic_ns() - job.submitted_ns) / NS_PER_S
            self._recipient.recognised(replace(held, utterance=job.utterance, wait_s=waited_s))
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
                    self._recognised(job, transcript, taken_ns)
                return
        for number, job in enumerate(jobs):
            self._begin([job.utterance], owed=utterances[number:])
            try:
                transcript = self._engine.transcribe(job.utterance)
            except EngineError as error:
                self._recipient.failed(job.utterance, error)
            else:
                self._recognised(job, transcript, taken_ns)

    def _begin(self, utterances: Sequence[Utterance], owed: Sequence[Utterance] = ()) -> None:
        duration_s = sum(utterance.duration_s for utterance in utterances)
        self.under_way = UnderWay(duration_s, time.monotonic(), tuple(owed))

    def _recognised(self, job: _Job, transcript: Transcript, taken_ns: int) -> None:
        self._budget.spent(transcript.inference_s, useful=True)
        queue_s = (taken_ns - job.submitted_ns) / NS_PER_S
        wait_s = (time.monotonic_ns() - job.submitted_ns) / NS_PER_S
        self._recipient.recognised(Recognition(job.utterance, transcript, queue_s, wait_s))

    def _run_errand(self, errand: _Errand) -> None:
        if not errand.answer.set_running_or_notify_cancel():
            return
        if errand.utterance:
            self._begin([errand.utterance])
        # The thread that waits for the answer gets the exception, and this one goes on.
        if error := attempt(lambda: errand.answer.set_result(errand.work())):
            errand.answer.set_exception(error)
        self.under_way = None

    def _dropped(self, job: _Job | _Errand) -> None:
        if isinstance(job, _Errand):
            job.answer.cancel()
        elif not job.is_draft:
            self._recipient.dropped(job.utterance)

    def _discard_held(self) -> None:
        if self._held:
            self._budget.spent(self._held.transcript.inference_s, useful=False)
            self._held = None


def _is_final(job: _Job | _Errand) -> bool:
    return isinstance(job, _Job) and not job.is_draft


def _same(draft: Utterance, final: Utterance) -> bool:
    """Whether both are the same samples: more speech makes an utterance longer, and never shorter."""
    return draft.id == final.id and len(draft.pcm) == len(final.pcm)
