"""Speech to text behind one protocol."""

from typing import Protocol

from agent.audio import Utterance
from agent.transcript import Transcript


class Engine(Protocol):
    """Transcribes one utterance at a time.

    Created and warmed up by the composition root; `transcribe` is called from the transcribe thread only, `close` from
    the same thread or after it has ended. Nothing is transcribed after `close`. An engine never touches the network.
    """

    def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the words of `utterance` (at most 30 s).

        Raises:
            EngineError: inference failed; the engine stays usable.
        """

    def close(self) -> None:
        """Free the model; idempotent."""
