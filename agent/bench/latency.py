"""From the end of speech to the transcript at a subscriber, through the whole agent. Pure parts.

    clip ── pause ── clip ── pause ── …   one recording, played as fast as a microphone would deliver it
       speech ends ┤├ hang-over ┤├ what remains of the decoding ┤ arrives at the subscriber
                    └────────────── from_speech_end_s ──────────┘
                                 └─────── after_hangover_s ─────┘

When it was played is reckoned back from the message: it says when its utterance began, and where in the recording that
is follows from putting the recording through the same segmenter once more (the same sound gives the same utterances).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, samples

PAUSE_MS = 1_800
"""Between clips: any hang-over in use is over by then, and the engine is at rest again."""
_NOISE_LEVEL = 8.0
"""Standard deviation of the noise in the pauses, in units of 16 bits: a quiet room at -72 dBFS."""
_DURATION_TOLERANCE_S = 0.002


@dataclass(frozen=True, slots=True)
class Playlist:
    """Clips strung together."""

    pcm: Pcm16
    """Shape (n,), int16, 16 kHz."""
    starts: tuple[int, ...]
    """Position of the first sample of each clip."""

    def clip_at(self, position: int) -> int:
        """Index of the clip that is playing, or has last been playing, at `position`."""
        return max(0, sum(start <= position for start in self.starts) - 1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a subscriber saw of one utterance."""

    started_s: float
    """Wall clock when the utterance began, as the message tells."""
    duration_s: float
    """Of the utterance, as the message tells."""
    text: str
    received_s: float
    """Wall clock when the message arrived."""


@dataclass(frozen=True, slots=True)
class Delay:
    """How late one utterance was."""

    clip: int
    """Index into the playlist."""
    text: str
    from_speech_end_s: float
    after_hangover_s: float


def string_together(clips: Sequence[Pcm16]) -> Playlist:
    """All clips, in order, with a pause before each and behind the last."""
    pauses = [quiet_room(samples(PAUSE_MS), seed) for seed in range(len(clips) + 1)]
    parts = [pauses[0]]
    starts = []
    for clip, pause in zip(clips, pauses[1:], strict=True):
        starts.append(sum(map(len, parts)))
        parts += [clip, pause]
    return Playlist(np.concatenate(parts), tuple(starts))


def quiet_room(length: int, seed: int = 0) -> Pcm16:
    """`length` samples of what a microphone hears where nothing happens; always the same for the same `seed`."""
    noise: Pcm16 = np.random.default_rng(seed).normal(0.0, _NOISE_LEVEL, length).astype(np.int16)
    return noise


def delays(playlist: Playlist, utterances: Sequence[Utterance], arrivals: Iterable[Arrival]) -> list[Delay]:
    """How late each arrival was.

    Arrivals come in the order of the utterances, but some utterances never do: what the evidence rejects is not
    published. An arrival belongs to the next utterance of its length; one that fits nothing is left out.
    """
    waiting = list(utterances)
    found: list[Delay] = []
    for arrival in arrivals:
        fitting = (index for index, utterance in enumerate(waiting) if _same_length(utterance, arrival))
        index = next(fitting, None)
        if index is None:
            continue
        utterance = waiting[index]
        del waiting[: index + 1]
        age_s = arrival.received_s - arrival.started_s
        found.append(
            Delay(
                clip=playlist.clip_at(utterance.speech_end),
                text=arrival.text,
                from_speech_end_s=age_s - (utterance.speech_end - utterance.position) / SAMPLE_RATE_HZ,
                after_hangover_s=age_s - (utterance.closed_at - utterance.position) / SAMPLE_RATE_HZ,
            )
        )
    return found


def _same_length(utterance: Utterance, arrival: Arrival) -> bool:
    return abs(utterance.duration_s - arrival.duration_s) < _DURATION_TOLERANCE_S
