"""The answer of an engine: words, and the evidence for them."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the evidence says about a transcript."""

    CONFIDENT = "confident"
    DOUBTFUL = "doubtful"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an utterance, as Whisper's timestamps divide it."""

    start_s: float
    """Seconds from the start of the utterance."""
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of one utterance; inside `decoding`, also the result of one decoding.

    A figure that an engine does not know is None, never 0.
    """

    utterance_id: str
    text: str
    """Stripped; empty if the engine found no words."""
    language: str
    """ISO 639-1 code."""
    segments: tuple[Segment, ...]
    engine: str
    """Engine kind: `whisper_cpp`, `faster_whisper` or `scripted`."""
    model: str
    """Catalogue name, such as `tiny.en-q8_0`."""
    inference_s: float
    """Seconds from the samples to the words, mel spectrogram and retries included; in a batch, its share."""
    audio_ctx: int
    """Encoder positions used; 50 are one second, 1500 is Whisper's full window."""
    tokens: int = 0
    """Text tokens decoded, retries included."""
    retries: int = 0
    """Further decodings that the evidence asked for."""
    avg_logprob: float | None = None
    """Mean natural log probability of the text tokens; 0 is certainty, below -1 is doubtful."""
    no_speech_prob: float | None = None
    """Whisper's own probability, in [0, 1], that there was no speech."""
    compression_ratio: float | None = None
    """Length of the text over its zlib-compressed length; above 2.4 it repeats itself (openai/whisper's measure)."""
    language_prob: float | None = None
    """Probability, in [0, 1], of the detected language; None where the language was given."""
    capped: bool = False
    """The token cap ended the decoding, not the decoder."""
    verdict: Verdict = Verdict.CONFIDENT

    @property
    def end_s(self) -> float:
        """Seconds from the start to the last timestamp; 0 without words."""
        return self.segments[-1].end_s if self.segments else 0.0
