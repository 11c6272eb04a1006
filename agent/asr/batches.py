"""Which of the utterances that wait are decoded together.

In a batch all have the window of the longest. Each gets the words that it gets alone in that window, but what is
shorter pays for silence. The figures were found by experiment: `docs/decisions/0010-batches.md`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from agent.asr.context import FULL_WINDOW, Window

CPU_BATCH: Final = 4
CUDA_BATCH: Final = 8
"""Default sizes. A GPU is idle most of the time with one utterance; on a CPU only the decoder gains."""

_MOST_PADDING: Final = 1.25
"""On a CPU the encoder pays for each position: the longest window of a batch over its shortest, at most."""


def common_window(windows: Iterable[Window]) -> Window:
    """Return the window in which utterances with `windows` can be decoded together: the largest, and the latest end."""
    chosen = list(windows)
    return Window(max(window.positions for window in chosen), max(window.max_tokens for window in chosen))


def batches(windows: Sequence[Window], *, frugal: bool) -> list[list[int]]:
    """Divide utterances with `windows`, given by their indices, into those that are decoded together.

    Everything at once where positions cost next to nothing (a GPU). `frugal` (a CPU) puts those together whose windows
    are of about the same size, and never more than need the memory of one full window, which a retry takes as well:
    attention grows with the square of the positions.
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
