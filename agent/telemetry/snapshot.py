"""The state of the device at one moment: one type for all that publish or show it."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import Metric

from agent.messages.telemetry import METRICS, Cpu, Disk, Fan, Gpu, Mem, Mqtt, Net, Psi, Pwr, TelemetryMessage, Wifi
from agent.telemetry import host as linux
from agent.telemetry import jetson
from agent.telemetry.counters import Counters, Total
from agent.telemetry.vitals import Vitals, VitalsWatch

MOST_BYTES: Final = 1_024
"""Largest message: a broker with 10,000 devices is sized for it."""
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine. A part without any value is None."""

    cpu: Cpu
    mem: Mem
    disk: Disk
    psi: Psi | None = None
    pwr: Pwr | None = None
    gpu: Gpu | None = None
    fan: Fan | None = None
    wifi: Wifi | None = None
    net: Net | None = None


class Host:
    """Reads the machine below `root`. Not thread-safe: CPU load is measured from one `read` to the next.

    `root` has its `/sys`, `/proc`, `/etc` and `/var`: another folder in a container, and in tests. The memory and disk
    space of the agent are always those of this process.
    """

    def __init__(self, state_dir: Path, root: Path = linux.ROOT) -> None:
        self._state_dir = state_dir
        self._root = root
        self._load = linux.CpuLoad(root)

    def read(self, vitals: Vitals) -> HostReading:
        """Read the other values beside `vitals`, which takes a few milliseconds."""
        root = self._root
        rails = jetson.rails_w(root)
        measured = {"in_w": jetson.input_w(rails), "rails_w": rails or None, "mode": jetson.power_mode(root)}
        power = vitals.power.model_copy(update=measured)
        return HostReading(
            cpu=Cpu(
                pct=self._load.pct(),
                load1=linux.load1(root),
                temp_c=vitals.cpu_temp_c,
                freq_mhz=linux.cpu_frequency_mhz(root),
            ),
            mem=linux.memory(root).model_copy(update={"rss_mb": self._resident_mb()}),
            disk=Disk(pct=self._disk_pct(), written_mb=linux.written_mb(root), wear_pct=linux.wear_pct(root)),
            psi=linux.pressure(root),
            pwr=None if power == Pwr() else power,
            gpu=jetson.gpu(root),
            fan=linux.fan(root),
            wifi=linux.wifi(root),
            net=linux.network(root),
        )

    def _resident_mb(self) -> float | None:
        """Return the memory of this process and the engine's. The latter may end at any moment."""
        try:
            process = psutil.Process()
            resident = int(process.memory_info().rss)
            for child in process.children():
                with contextlib.suppress(psutil.Error):
                    resident += int(child.memory_info().rss)
        except (psutil.Error, OSError, RuntimeError):  # /proc is absent, or has processes only (`ProcSubset=pid`)
            return None
        return round(resident / _MIB, 1)

    def _disk_pct(self) -> float | None:
        try:
            return psutil.disk_usage(str(self._state_dir)).percent
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the device at one moment."""

    telemetry: TelemetryMessage
    """With every rail of the board; see `message`."""
    totals: Mapping[Total, float]
    distributions: tuple[Metric, ...]
    """Both as in `Counters`."""
    problems: tuple[str, ...] = ()
    """Current codes of `health`."""

    def message(self) -> TelemetryMessage:
        """Return the message for MQTT, of at most `MOST_BYTES`: it leaves out the rails if there are too many."""
        power = self.telemetry.pwr
        if power and power.rails_w and len(self.telemetry.payload()) > MOST_BYTES:
            return self.telemetry.model_copy(update={"pwr": power.model_copy(update={"rails_w": None})})
        return self.telemetry


def take_snapshot(
    host: HostReading,
    counters: Counters,
    *,
    waiting: int,
    started_s: float,
    mqtt: Mqtt | None,
    problems: Sequence[str],
) -> Snapshot:
    """Combine a reading of the machine with the counters of the stages and the state of the link.

    `waiting` utterances are in the engine's queue. The agent started at `started_s` (monotonic). `mqtt` is None without
    a link to a broker.
    """
    telemetry = TelemetryMessage(
        ts=datetime.now(UTC),
        up_s=int(time.monotonic() - started_s),
        **{name: getattr(host, name) for name in HostReading.__slots__},
        audio=counters.audio(),
        asr=counters.asr(waiting),
        mqtt=mqtt,
    )
    return Snapshot(telemetry, counters.totals(), counters.distributions(), tuple(problems))


def absent_metrics(state_dir: Path, root: Path) -> frozenset[str]:
    """Return the numbers that this machine cannot measure, such as `cpu.temp_c`. Takes some milliseconds."""
    reading = Host(state_dir, root).read(VitalsWatch(root).latest)
    host = [metric for metric in METRICS if metric.path.partition(".")[0] in HostReading.__slots__]
    return frozenset(metric.path for metric in host if metric.value(reading) is None)
