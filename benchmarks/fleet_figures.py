"""What the simulator's subscriber has seen, and the figures made of it."""

import bisect
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

STAMP: Final = "sent at "
BURST: Final = "burst, sent at "
"""How a transcript's text begins; a monotonic time follows."""


def quantile(values: list[float], share: float) -> float:
    """Return the nearest-rank quantile, or NaN for an empty list."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Observation:
    """Written by the subscriber's thread; lists only grow, so that others may read them meanwhile."""

    def __init__(self) -> None:
        self.repeated = 0
        """Transcripts that came more than once."""
        self.bursts = 0
        self.last_burst_s = 0.0
        self._arrivals_s: list[float] = []
        self._latencies: list[tuple[float, float]] = []
        self._online: list[tuple[float, str]] = []
        self._transcripts: dict[str, set[int]] = {}

    def message(self, topic: str, payload: bytes, now_s: float) -> None:
        """One has come in at `now_s`."""
        _, _, device, kind = topic.split("/", 3)
        self._arrivals_s.append(now_s)
        if kind == "status" and payload == b"online":
            self._online.append((now_s, device))
        elif kind.startswith("transcript"):
            self._transcript(device, json.loads(payload), now_s)

    def _transcript(self, device: str, payload: dict[str, Any], now_s: float) -> None:
        numbers = self._transcripts.setdefault(device, set())
        if payload["seq"] in numbers:
            self.repeated += 1
            return
        numbers.add(payload["seq"])
        text: str = payload["text"]
        if text.startswith(BURST):
            self.bursts += 1
            self.last_burst_s = now_s
        else:
            self._latencies.append((now_s, now_s - float(text.removeprefix(STAMP))))

    def online_since(self, since_s: float) -> dict[str, float]:
        """When each device was first seen online, after `since_s`."""
        found: dict[str, float] = {}
        for at_s, device in list(self._online):
            if at_s >= since_s:
                found.setdefault(device, at_s)
        return found

    def delays_since(self, since_s: float) -> list[float]:
        """Seconds from `since_s` until each device was seen online."""
        return [at_s - since_s for at_s in self.online_since(since_s).values()]

    def _between(self, begin_s: float, end_s: float) -> list[float]:
        arrivals_s = list(self._arrivals_s)
        return arrivals_s[bisect.bisect_left(arrivals_s, begin_s) : bisect.bisect_left(arrivals_s, end_s)]

    def rate(self, begin_s: float, end_s: float) -> float:
        """Messages a second."""
        return len(self._between(begin_s, end_s)) / (end_s - begin_s)

    def peak_rate(self, begin_s: float, end_s: float) -> int:
        """Messages in the busiest second."""
        return max(Counter(int(at_s - begin_s) for at_s in self._between(begin_s, end_s)).values(), default=0)

    def latencies(self, begin_s: float, end_s: float) -> list[float]:
        """Publish-to-receive times of the transcripts that came in between."""
        return [latency_s for at_s, latency_s in list(self._latencies) if begin_s <= at_s < end_s]

    def missing(self, sent: dict[str, int]) -> int:
        """How many of the transcripts 1 to n of each device have not come."""
        return sum(n - sum(seq <= n for seq in list(self._transcripts.get(name, ()))) for name, n in sent.items())


@dataclass(slots=True)
class Figures:
    """The result; times in seconds."""

    devices: int
    outbox: str
    machine: str
    connect_s: list[float] = field(default_factory=list)
    storm_peak: int = 0
    steady_rate: float = math.nan
    steady_latency_s: list[float] = field(default_factory=list)
    broker_cpu_pct: float = math.nan
    broker_rss_mb: float = math.nan
    burst_rate: float = math.nan
    outage_s: float = math.nan
    back_s: list[float] = field(default_factory=list)
    drained_s: float = math.nan
    recovery_peak: int = 0
    sent: int = 0
    lost: int = 0
    repeated: int = 0
    failures: list[str] = field(default_factory=list)
    """Threads of devices that ended with an error."""

    @property
    def sound(self) -> bool:
        """Return whether all devices connected and returned, and no transcript was lost."""
        everybody = len(self.connect_s) == len(self.back_s) == self.devices
        return everybody and not self.lost and not self.failures

    def as_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "devices": self.devices,
            "outbox": self.outbox,
            "machine": self.machine,
            "connected": len(self.connect_s),
            "connect_s": _spread(self.connect_s),
            "storm_peak_messages_per_s": self.storm_peak,
            "steady_messages_per_s": round(self.steady_rate, 1),
            "publish_to_receive_s": _spread(self.steady_latency_s),
            "broker_cpu_pct": round(self.broker_cpu_pct, 1),
            "broker_rss_mb": round(self.broker_rss_mb, 1),
            "burst_messages_per_s": None if math.isnan(self.burst_rate) else round(self.burst_rate),
            "outage_s": self.outage_s,
            "back": len(self.back_s),
            "back_s": _spread(self.back_s),
            "drained_s": round(self.drained_s, 2),
            "recovery_peak_messages_per_s": self.recovery_peak,
            "transcripts": self.sent,
            "lost": self.lost,
            "repeated": self.repeated,
            "failures": self.failures,
        }


def _spread(values_s: list[float]) -> dict[str, float | None]:
    quantiles = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(quantile(values_s, share), 4) if values_s else None for name, share in quantiles.items()}


def table(figures: Figures) -> str:
    """The figures as a Markdown table."""
    rows = (
        ("connection storm: all at once until seen online", _line(figures.connect_s)),
        ("storm: busiest second", f"{figures.storm_peak} messages"),
        ("steady: messages a second", f"{figures.steady_rate:.0f}"),
        ("steady: transcript, publish to receive", _line(figures.steady_latency_s)),
        ("steady: broker", f"{figures.broker_cpu_pct:.1f} % of a core, {figures.broker_rss_mb:.0f} MB"),
        ("burst: transcripts a second, QoS 1 acknowledged", f"{figures.burst_rate:.0f}"),
        (f"restart, {figures.outage_s:.0f} s away: until seen online again", _line(figures.back_s)),
        ("restart: until everything said meanwhile was there", f"{figures.drained_s:.1f} s"),
        ("restart: busiest second", f"{figures.recovery_peak} messages"),
        ("transcripts: sent, lost, repeated", f"{figures.sent}, {figures.lost}, {figures.repeated}"),
    )
    head = f"| {figures.devices} devices, outbox `{figures.outbox}`, {figures.machine} | |\n|---|---|\n"
    return head + "\n".join(f"| {what} | {value} |" for what, value in rows)


def _line(values_s: list[float]) -> str:
    if not values_s:
        return "–"
    p50, p99, most = (quantile(values_s, share) for share in (0.5, 0.99, 1.0))
    if most < 1.0:
        return f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, max {most * 1e3:.0f} ms"
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {most:.2f} s"
