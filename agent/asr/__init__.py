"""Speech to text behind one protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # numpy starts threads, and an engine process may not have any before it is confined
    from agent.asr.transcript import Transcript
    from agent.audio.frames import Utterance


class Engine(Protocol):
    """Transcribes one utterance at a time.

    Created and warmed up by the composition root; `transcribe` is called from the transcribe thread only, `close` from
    the same thread or after it has ended. Nothing is transcribed after `close`. An engine never touches the network.
    """

    def transcribe(self, utterance: "Utterance") -> "Transcript":
        """Return the words of `utterance` (at most 30 s).

        Raises:
            EngineError: inference failed; the engine stays usable.
        """

    def close(self) -> None:
        """Free the model; idempotent."""


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """An engine to which several utterances at once cost less than one after another; the others know nothing of it."""

    @property
    def batch_size(self) -> int:
        """How many utterances at once are worth while at most; may change between two calls."""

    def transcribe_many(self, utterances: "Sequence[Utterance]") -> "Sequence[Transcript]":
        """Return the words of each of `utterances` (at most 30 s each), in their order.

        Called like `transcribe`.

        Raises:
            EngineError: there are words of none of them. Each is to be tried by itself, as one may be to blame.
        """


def batch_size(engine: Engine) -> int:
    """How many utterances at once are worth while with `engine`: 1 unless it can do batches."""
    return max(1, engine.batch_size) if isinstance(engine, BatchEngine) else 1


def process_id(engine: Engine) -> int | None:
    """The process in which `engine` runs; None for one in this process, or between two of its processes."""
    pid: int | None = getattr(engine, "pid", None)
    return pid


def transcribe_many(engine: Engine, utterances: "Sequence[Utterance]") -> "Sequence[Transcript]":
    """Return the words of each of `utterances`, in their order: at once where the engine can, else one after another.

    Raises:
        EngineError: as `BatchEngine.transcribe_many` does.
    """
    if isinstance(engine, BatchEngine):
        return engine.transcribe_many(utterances)
    return [engine.transcribe(utterance) for utterance in utterances]
