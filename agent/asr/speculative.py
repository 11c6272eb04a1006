"""How much may be spent on decoding before a pause is complete.

A draft is an utterance that would be over if the pause goes on. Decoding it inside the hang-over hides the inference;
if speech resumes, the work was for nothing. This object keeps that waste within a share of the useful work.
"""

GRACE_S = 1.0
"""Waste that is allowed before there is any useful work to compare it with."""


class DraftBudget:
    """Decides whether the next draft may be decoded. Not thread-safe: it belongs to the transcribe thread."""

    def __init__(self, max_waste: float = 0.3) -> None:
        self._max_waste = max_waste
        self._useful_s = 0.0
        self._wasted_s = 0.0

    def spent(self, inference_s: float, *, useful: bool) -> None:
        """Book `inference_s` seconds of inference."""
        if useful:
            self._useful_s += inference_s
        else:
            self._wasted_s += inference_s

    @property
    def allows(self) -> bool:
        """True while the waste is within its share (and a grace of one second)."""
        return self._wasted_s <= GRACE_S + self._max_waste * self._useful_s
