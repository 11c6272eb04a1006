"""The part of Whisper's 30-second window for an utterance: the context follows its length.

The encoder pays for every position, also for silence, so the full window makes a three-second command five to ten times
more expensive. In a too short window the decoder loops. The figures come from the experiments in
`docs/decisions/0002-context-follows-the-utterance.md`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

POSITIONS_PER_SECOND: Final = 50
FULL_WINDOW: Final = 1_500
"""Encoder positions of 30 seconds."""
WINDOW_S: Final = FULL_WINDOW / POSITIONS_PER_SECOND
MAX_TOKENS: Final = 224
"""Half of the decoder's positions: Whisper's own limit for a window."""

_TOKENS_PER_SECOND: Final = 8.0
"""The fastest recordings need 7 (numbers read out in English, Dutch and Russian sentences)."""
_TOKENS_OF_GRACE: Final = 16
"""For very short utterances, punctuation and timestamps."""


@dataclass(frozen=True, slots=True)
class Window:
    """The limits of one decoding."""

    positions: int
    """Encoder positions, at most 1500."""
    max_tokens: int
    """The decoder stops after so many tokens, timestamps included."""

    @property
    def frames(self) -> int:
        """Mel frames of 10 ms that fill the encoder positions."""
        return 2 * self.positions


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """The window for a model: the length of the utterance plus a margin, but at least a minimum."""

    min_positions: int
    margin_positions: int

    def window(self, duration_s: float) -> Window:
        """Return the window for an utterance of `duration_s` seconds."""
        heard = math.ceil(duration_s * POSITIONS_PER_SECOND)
        positions = min(FULL_WINDOW, max(self.min_positions, heard + self.margin_positions))
        return Window(positions, token_cap(duration_s))


_BASE_STATE: Final = 512

FULL: Final = ContextPolicy(min_positions=FULL_WINDOW, margin_positions=0)
"""The stock behaviour, and the last retry."""
WIDER: Final = ContextPolicy(min_positions=768, margin_positions=384)
"""The first retry: half of the window cures nearly every loop, for two fifths of the cost of the full window."""
FOLLOW: Final = ContextPolicy(min_positions=384, margin_positions=128)
"""For models up to base."""
ROOMY: Final = ContextPolicy(min_positions=512, margin_positions=256)
"""For larger models, which have more to lose."""
MOST_TIMES: Final = 5
"""All decodings of an utterance together get at most so many times the positions of its first window. So the answer to
a short command never waits for a window of 30 seconds (docs/decisions/0016)."""


def policy_for(context: str, audio_state: int) -> ContextPolicy:
    """Return the policy for a model whose encoder is `audio_state` wide (384 tiny, 512 base, 768 small, …).

    `context` is the setting: `follow`, `full`, or `MIN+MARGIN` in positions. Measured, tiny and base need the same.
    """
    if context == "full":
        return FULL
    if "+" in context:
        least, margin = map(int, context.split("+"))
        return ContextPolicy(least, margin)
    return FOLLOW if audio_state <= _BASE_STATE else ROOMY


def token_cap(duration_s: float) -> int:
    """Return the token limit of an utterance of `duration_s` seconds."""
    return min(MAX_TOKENS, int(duration_s * _TOKENS_PER_SECOND) + _TOKENS_OF_GRACE)


# Batches (docs/decisions/0010-batches.md): all utterances of a batch have the window of the longest. Each gets the same
# words as alone in that window, but the shorter ones pay for silence.

CPU_BATCH: Final = 4
CUDA_BATCH: Final = 8
"""Default sizes. A GPU is idle most of the time with one utterance; on a CPU only the decoder gains."""

_MOST_PADDING: Final = 1.25
"""The longest window of a batch over its shortest, at most: on a CPU the encoder pays for each position."""


def common_window(windows: Iterable[Window]) -> Window:
    """Return the window for utterances with `windows` together: the most positions and the most tokens."""
    chosen = list(windows)
    return Window(max(window.positions for window in chosen), max(window.max_tokens for window in chosen))


def batches(windows: Sequence[Window], *, frugal: bool) -> list[list[int]]:
    """Divide the indices of utterances with `windows` into batches.

    On a GPU positions cost little, so all go into one batch. `frugal` (a CPU) puts windows of about the same size
    together, and limits a batch to the memory of one full window, which a retry needs as well: attention grows with the
    square of the positions.
    """
    order = sorted(range(len(windows)), key=lambda index: windows[index].positions)
    if not frugal:
        return [order] if order else []
    groups: list[list[int]] = []
    for index in order:
        positions = windows[index].positions
        if groups and _fits(positions, windows[groups[-1][0]].positions, len(groups[-1]) + 1):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _fits(largest: int, smallest: int, utterances: int) -> bool:
    return largest <= _MOST_PADDING * smallest and utterances * largest**2 <= FULL_WINDOW**2
