"""One device, as far as its messages tell, and how it is doing. Pure: time is an argument."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_INTERVAL_S: Final = 66.0
"""The default telemetry interval, and a tenth."""
_SILENT_INTERVALS: Final = 3
_BEHIND_MESSAGES: Final = 10
_BEHIND_RTF: Final = 1.0
_BACKLOG_S: Final = 60.0


class Standing(IntEnum):
    """How a device is doing; the higher, the more urgent."""

    OK = 0
    MUTED = 1
    BEHIND = 2
    """Its engine or its outbox does not keep up, or it still delivers what was said before."""
    PROBLEM = 3
    """It says itself that something is wrong."""
    SILENT = 4
    """It counts as online and has sent no telemetry for three intervals."""
    OFFLINE = 5


@dataclass(frozen=True, slots=True)
class Vitals:
    """The part of telemetry that is shown; None where the device cannot tell."""

    cpu_pct: float | None = None
    temp_c: float | None = None
    mem_pct: float | None = None
    rtf_p95: float | None = None
    lat_ms_p95: float | None = None
    dropped_s: float | None = None
    outbox_n: float | None = None
    dropped: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of one device. Instants are monotonic seconds of arrival."""

    id: str
    first_s: float
    name: str | None = None
    online: bool | None = None
    codes: tuple[str, ...] = ()
    """What it says is wrong."""
    listening: bool | None = None
    speaking: bool = False
    agent: str | None = None
    hardware: str | None = None
    model: str | None = None
    language: str | None = None
    vitals: Vitals = Vitals()
    telemetry_s: float | None = None
    interval_s: float = _INTERVAL_S
    """Between two telemetry messages, the longest of late."""
    backlog_s: float | None = None
    """When the last late transcript came."""
    said_s: float | None = None
    """When the last live transcript came."""

    def standing(self, now_s: float) -> Standing:
        """How it is doing."""
        if self.online is False:
            return Standing.OFFLINE
        heard_s = self.first_s if self.telemetry_s is None else self.telemetry_s
        if now_s - heard_s > _SILENT_INTERVALS * self.interval_s:
            return Standing.SILENT
        if set(self.codes) - {"falling_behind"}:
            return Standing.PROBLEM
        if self.codes or self._lags(now_s):
            return Standing.BEHIND
        return Standing.MUTED if self.listening is False else Standing.OK

    def _lags(self, now_s: float) -> bool:
        return (
            (self.vitals.rtf_p95 or 0.0) >= _BEHIND_RTF
            or (self.vitals.outbox_n or 0) >= _BEHIND_MESSAGES
            or (self.backlog_s is not None and now_s - self.backlog_s < _BACKLOG_S)
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line."""

    device_id: str
    kind: str
    """`transcript`, `backlog`, `failed`, `keyword`, `status`, `health`, `state` or `telemetry`."""
    text: str
    received_s: float
    grave: bool = False
    note: str = ""
    """Evidence, such as `0.66 s, 87 %`."""
