"""Decides which part of a transcript leaves the device. Pure."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from agent.asr.transcript import Transcript, Verdict
from agent.config.keywords import KeywordRule, keyword_rules, keywords_in
from agent.config.settings import PublishSettings


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """The section `publish` of the settings, ready to be used."""

    privacy: Literal["full", "keywords", "off"] = "full"
    min_confidence: float = 0.0
    rules: tuple[KeywordRule, ...] = ()
    partials: bool = False

    @classmethod
    def of(cls, settings: PublishSettings) -> Self:
        """Read the section `publish`."""
        return cls(settings.privacy, settings.min_confidence, keyword_rules(settings.keywords), settings.partials)

    @property
    def transcribes(self) -> bool:
        """Whether any message needs the words."""
        return self.privacy != "off"

    @property
    def publishes_text(self) -> bool:
        """Whether transcripts leave the device."""
        return self.privacy == "full"

    @property
    def publishes_partials(self) -> bool:
        """Whether partial transcripts leave the device."""
        return self.partials and self.publishes_text

    def accepts(self, transcript: Transcript) -> bool:
        """Return whether there are words, and the engine was sure enough of them.

        An engine that gives no probability is trusted.
        """
        if not transcript.text or transcript.verdict is Verdict.REJECTED:
            return False
        return confidence(transcript) >= self.min_confidence

    def keywords(self, transcript: Transcript) -> tuple[str, ...]:
        """Return the names of the spoken keywords."""
        return keywords_in(transcript.text, self.rules) if self.transcribes else ()


def confidence(transcript: Transcript) -> float:
    """Return the geometric mean of the tokens' probabilities, in [0, 1]; 1 if the engine gives none."""
    logprob = transcript.avg_logprob
    return 1.0 if logprob is None else math.exp(min(0.0, logprob))
