"""From the sound of a request to its words: the same detector, segmenter and evidence as for the microphone.

So what Assist sends gets no invented words either, and silence around a command costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.audio import Pcm16, Utterance, frames_of
from agent.segmenter import Segmenter
from agent.transcript import Transcript, Verdict
from agent.utterances import utterances_in
from agent.vad import VoiceActivityDetector

TIMEOUT_S: Final = 60.0
"""How long a request waits for the engine, which the microphone has first."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """Turns samples into words. May be called from several threads: each call has a detector and a segmenter anew."""

    detector: Callable[[], VoiceActivityDetector]
    segmenter: Callable[[], Segmenter]
    transcribe: Callable[[Utterance, float], Transcript]
    """Within so many seconds; raises EngineError."""

    def __call__(self, pcm: Pcm16) -> str:
        """The words in `pcm`, shape (n,), 16 kHz; an empty text if there are none.

        Raises:
            EngineError: the engine failed, or had no time.
        """
        utterances = list(utterances_in(frames_of([pcm]), self.detector(), self.segmenter()))
        transcripts = [self.transcribe(utterance, TIMEOUT_S) for utterance in utterances]
        return " ".join(one.text for one in transcripts if one.text and one.verdict is not Verdict.REJECTED)
