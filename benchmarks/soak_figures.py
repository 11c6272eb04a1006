"""What a soak found: samples of the processes and the transcripts, summed up a quarter of the run at a time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

FLAT: Final = 0.02
"""Memory that grows by less from the second quarter to the last one counts as flat. The first quarter warms up."""
QUARTERS: Final = 4
_MEGA: Final = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """The agent at one moment."""

    at_s: float
    """Seconds since it was ready."""
    agent_rss_bytes: int
    engine_rss_bytes: int
    """0 where there is no engine process at this moment."""
    descriptors: int
    """Open in the agent's process."""
    threads: int
    """Of the agent's process."""
    outbox: int
    """Messages that waited for the broker, by the last telemetry."""


@dataclass(frozen=True, slots=True)
class Word:
    """What became of one utterance."""

    at_s: float
    """Seconds since the agent was ready, when it was told."""
    seq: int
    duration_s: float
    text: str | None
    """None if it failed."""
    rtf: float
    queue_ms: int
    total_ms: int


@dataclass(frozen=True, slots=True)
class Quarter:
    """A quarter of the run; medians, unless the name says otherwise."""

    agent_rss_mb: float
    engine_rss_mb: float
    descriptors_max: int
    threads_max: int
    outbox_max: int
    utterances: int
    rtf: float
    queue_ms_p95: float
    total_ms_p50: float
    total_ms_p95: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole run."""

    wall_s: float
    heard_s: float
    """Seconds of sound that were played."""
    paced: bool
    kills: int
    """Times that the engine's process was killed."""
    losses: int
    """Engine processes that the agent says it lost."""
    utterances: int
    failed: int
    numbers_in_order: bool
    """Whether the transcripts are numbered without a gap, in the order in which they came."""
    gaps_s: float
    """Seconds of sound lost, by the agent's own count."""
    differing: int | None
    """Utterances that are not as in a run without kills; None where that was not asked."""
    quarters: tuple[Quarter, ...]

    @property
    def growth(self) -> float:
        """Of the agent's memory from the second quarter to the last, as a share."""
        return self.quarters[-1].agent_rss_mb / self.quarters[1].agent_rss_mb - 1.0

    @property
    def sound(self) -> bool:
        """Return whether all utterances arrived and no figure grows."""
        first, last = self.quarters[1], self.quarters[-1]
        flat = self.growth <= FLAT and last.descriptors_max <= first.descriptors_max + 1
        complete = self.numbers_in_order and not self.failed and not self.gaps_s and not self.differing
        return complete and flat and last.threads_max <= first.threads_max + 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "growth": round(self.growth, 4), "sound": self.sound}


def quarters(samples: Sequence[Sample], words: Sequence[Word]) -> tuple[Quarter, ...]:
    """Cut the run into four parts of the same length."""
    end_s = samples[-1].at_s
    found = []
    for number in range(QUARTERS):
        since_s, until_s = end_s * number / QUARTERS, end_s * (number + 1) / QUARTERS
        seen = [sample for sample in samples if since_s <= sample.at_s <= until_s] or [samples[-1]]
        told = [word for word in words if since_s <= word.at_s <= until_s]
        found.append(_quarter(seen, told))
    return tuple(found)


def _quarter(samples: Sequence[Sample], words: Sequence[Word]) -> Quarter:
    engines = [sample.engine_rss_bytes for sample in samples if sample.engine_rss_bytes]
    return Quarter(
        agent_rss_mb=round(median(sample.agent_rss_bytes for sample in samples) / _MEGA, 2),
        engine_rss_mb=round(median(engines) / _MEGA, 2) if engines else 0.0,
        descriptors_max=max(sample.descriptors for sample in samples),
        threads_max=max(sample.threads for sample in samples),
        outbox_max=max(sample.outbox for sample in samples),
        utterances=len(words),
        rtf=_share(words, lambda word: word.rtf, 50),
        queue_ms_p95=_share(words, lambda word: word.queue_ms, 95),
        total_ms_p50=_share(words, lambda word: word.total_ms, 50),
        total_ms_p95=_share(words, lambda word: word.total_ms, 95),
    )


def _share(words: Iterable[Word], of: Callable[[Word], float], percent: int) -> float:
    values = sorted(map(of, words))
    return round(values[min(len(values) - 1, len(values) * percent // 100)], 3) if values else 0.0


def table(figures: Figures) -> str:
    """For people and for Markdown: one column a quarter."""
    kills = f", the engine killed {figures.kills} times ({figures.losses} lost)" if figures.kills else ""
    pace = "in real time" if figures.paced else "flat out"
    lines = [
        f"{figures.heard_s / 3600:.2f} h of sound {pace} in {figures.wall_s / 60:.1f} min{kills}: "
        f"{figures.utterances} utterances, {figures.failed} failed, "
        f"numbers {'in order' if figures.numbers_in_order else 'NOT IN ORDER'}, {figures.gaps_s:g} s of sound lost"
        + ("" if figures.differing is None else f", {figures.differing} not as in a run without kills"),
        "",
        "| | first quarter | second | third | last |",
        "|---|---|---|---|---|",
    ]
    # A file at full speed waits for the engine, so its latency has no meaning.
    shown = [name for name in Quarter.__dataclass_fields__ if figures.paced or "_ms" not in name]
    lines += [f"| {name} | {' | '.join(str(getattr(each, name)) for each in figures.quarters)} |" for name in shown]
    return "\n".join([*lines, "", f"memory of the agent from the second quarter to the last: {figures.growth:+.2%}"])
