"""Everything that is known of the device at one moment: one type for all that publish or show it."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from agent.messages.telemetry import Cpu, Disk, Fan, Gpu, Mem, Mqtt, Net, Psi, Pwr, TelemetryMessage, Wifi
from agent.telemetry import host as linux
from agent.telemetry import jetson
from agent.telemetry.counters import Counters, Histogram
from agent.telemetry.vitals import VitalsWatch

MOST_BYTES: Final = 1_024
"""Of a message: 10,000 devices at one broker are sized for it."""
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine. A part of which nothing can be read is None."""

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

    `root` is where its `/sys`, `/proc`, `/etc` and `/var` are: another folder in a container, and in tests. Memory and
    disk space that belong to the agent are this process's own, wherever that is.
    """

    def __init__(self, state_dir: Path, root: Path = linux.ROOT) -> None:
        self._state_dir = state_dir
        self._root = root
        self._load = linux.CpuLoad(root)
        self._thermometer = linux.Thermometer(root)

    def read(self, flags: Pwr) -> HostReading:
        """Look at everything once, which takes a few milliseconds; `flags` and events of power are the watch's."""
        root = self._root
        rails = jetson.rails_w(root)
        measured = {"in_w": jetson.input_w(rails), "rails_w": rails or None, "mode": jetson.power_mode(root)}
        power = flags.model_copy(update=measured)
        return HostReading(
            cpu=Cpu(
                pct=self._load.pct(),
                load1=linux.load1(root),
                temp_c=self._thermometer.celsius(),
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
        """Memory of the agent: this process and the engine's, which may end at any moment."""
        try:
            process = psutil.Process()
            resident = int(process.memory_info().rss)
            for child in process.children():
                with contextlib.suppress(psutil.Error):
                    resident += int(child.memory_info().rss)
        except (psutil.Error, OSError, RuntimeError):  # /proc is absent, or shows processes only (`ProcSubset=pid`)
            return None
        return round(resident / _MIB, 1)

    def _disk_pct(self) -> float | None:
        try:
            return psutil.disk_usage(str(self._state_dir)).percent
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment."""

    telemetry: TelemetryMessage
    """With every rail of the board; see `message`."""
    heard_s: float
    """Seconds of sound since the start."""
    speech_s: float
    """Seconds of it that became utterances."""
    histograms: Mapping[str, Histogram]
    """As `Counters.histograms`."""
    problems: tuple[str, ...] = ()
    """What is wrong, as codes of `health`."""

    def message(self) -> TelemetryMessage:
        """What of it goes out over MQTT, in at most `MOST_BYTES`: rails are left out where they are too many."""
        power = self.telemetry.pwr
        if power and power.rails_w and len(self.telemetry.payload()) > MOST_BYTES:
            return self.telemetry.model_copy(update={"pwr": power.model_copy(update={"rails_w": None})})
        return self.telemetry


class SnapshotBuilder:
    """Makes snapshots. Each thread that wants some has its own, since CPU load is measured from one to the next.

    `waiting` tells how many utterances wait for the engine.
    """

    def __init__(
        self, host: Host, watch: VitalsWatch, counters: Counters, waiting: Callable[[], int], started_s: float
    ) -> None:
        self._host = host
        self._watch = watch
        self._counters = counters
        self._waiting = waiting
        self._started_s = started_s

    def snapshot(self, mqtt: Mqtt | None, problems: tuple[str, ...]) -> Snapshot:
        """This moment; `mqtt` is None where nothing is published over MQTT."""
        reading, totals = self._host.read(self._watch.latest.power), self._counters.totals()
        telemetry = TelemetryMessage(
            ts=datetime.now(UTC),
            up_s=int(time.monotonic() - self._started_s),
            **{name: getattr(reading, name) for name in HostReading.__slots__},
            audio=self._counters.audio(),
            asr=self._counters.asr(self._waiting()),
            mqtt=mqtt,
        )
        return Snapshot(telemetry, totals["heard_s"], totals["speech_s"], self._counters.histograms(), problems)
