"""What the machine says about itself, put together from its readers. What cannot be read is left out.

thermal        temperature, clock, fan        any board
linux          load, memory, pressure, disks, interfaces
raspberry_pi   under-voltage, throttling      `vitals.py` looks at these every second
jetson         GPU, rails, power mode, over-current
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import psutil

from agent.messages import Part
from agent.messages.telemetry import Cpu, Disk, Fan, Gpu, Mem, Net, Psi, Pwr, Wifi
from agent.telemetry import jetson, linux, thermal

ROOT: Final = Path("/")
_MIB: Final = 1024 * 1024

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine. A part of which nothing can be read is None."""

    cpu: Cpu
    mem: Mem
    disk: Disk
    psi: Psi | None = None
    pwr: Pwr | None = None
    """Here only what is measured; flags and events come from `VitalsWatch`, which does not miss them."""
    gpu: Gpu | None = None
    fan: Fan | None = None
    wifi: Wifi | None = None
    net: Net | None = None

    def with_power(self, flags: Pwr) -> "HostReading":
        """The same, with the flags and events of `flags` beside what is measured."""
        measured = self.pwr or Pwr()
        merged = flags.model_copy(update=measured.model_dump(exclude_none=True))
        return replace(self, pwr=_or_none(merged))


class Host:
    """Reads the machine below `root`. Not thread-safe: CPU load is measured from one `read` to the next.

    `root` is where its `/sys`, `/proc`, `/etc` and `/var` are: another folder in a container, and in tests. Memory and
    disk space that belong to the agent are this process's own, wherever that is.
    """

    def __init__(self, state_dir: Path, root: Path = ROOT) -> None:
        self._state_dir = state_dir
        self._root = root
        self._load = linux.CpuLoad(root)
        self._thermometer = thermal.Thermometer(root)

    def read(self) -> HostReading:
        """Look at everything once; takes a few milliseconds."""
        root = self._root
        return HostReading(
            cpu=self._cpu(),
            mem=linux.memory(root).model_copy(update={"rss_mb": self._resident_mb()}),
            disk=self._disk(),
            psi=linux.pressure(root),
            pwr=self._power(),
            gpu=jetson.gpu(root),
            fan=thermal.fan(root),
            wifi=linux.wifi(root),
            net=linux.network(root),
        )

    def _cpu(self) -> Cpu:
        return Cpu(
            pct=self._load.pct(),
            load1=linux.load1(self._root),
            temp_c=self._thermometer.celsius(),
            freq_mhz=thermal.cpu_frequency_mhz(self._root),
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

    def _disk(self) -> Disk:
        try:
            pct = psutil.disk_usage(str(self._state_dir)).percent
        except OSError:
            pct = None
        return Disk(pct=pct, written_mb=linux.written_mb(self._root), wear_pct=linux.wear_pct(self._root))

    def _power(self) -> Pwr | None:
        rails = jetson.rails_w(self._root)
        measured = Pwr(in_w=jetson.input_w(rails), rails_w=rails or None, mode=jetson.power_mode(self._root))
        return _or_none(measured)


def _or_none(part: P) -> P | None:
    """`part`, unless nothing in it is known."""
    return part if part.model_dump(exclude_none=True) else None
