"""Measure the cost of telemetry: CPU time of a look and of a message, and of a whole agent's main thread.

    python -m benchmarks.telemetry_cost                 # this machine, and the /sys trees of the boards in tests/data
    python -m benchmarks.telemetry_cost --agent 180     # and a real agent in a quiet room for three minutes

A look is the work of every second (temperature, power, memory). A message is the rest, once in 60 s. Times are CPU time
of the thread, medians of `--repeat` runs. The boards' files are on this machine's disk, so the time of real drivers is
not included.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from agent.telemetry.counters import Counters
from agent.telemetry.host import ROOT
from agent.telemetry.snapshot import Host, take_snapshot
from agent.telemetry.vitals import VitalsWatch
from tests.support.boards import BOARDS, unfold

INTERVAL_S: Final = 60
_WARM_UP_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one machine."""

    name: str
    look_ms: float
    message_ms: float
    message_bytes: int

    @property
    def share_pct(self) -> float:
        """Percentage of a core at a message every 60 s and a look every second."""
        return (INTERVAL_S * self.look_ms + self.message_ms) / (INTERVAL_S * 1_000) * 100


def cost(name: str, root: Path, repeat: int) -> Cost:
    """Measure both on the machine below `root`."""
    now_s = time.monotonic()

    def later() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    watch = VitalsWatch(root, clock_s=later)
    host, counters = Host(Path.cwd(), root), Counters()

    def message() -> bytes:
        reading = host.read(watch.latest)
        moment = take_snapshot(reading, counters, waiting=0, started_s=now_s, mqtt=None, problems=())
        return moment.message().payload()

    return Cost(name, _cpu_ms(watch.tick, repeat), _cpu_ms(message, repeat), len(message()))


def _cpu_ms(work: Callable[[], object], repeat: int) -> float:
    took_ms = []
    for _ in range(repeat):
        began_s = time.thread_time()
        work()
        took_ms.append((time.thread_time() - began_s) * 1_000)
    return statistics.median(took_ms)


def main_thread_pct(seconds: float, folder: Path) -> float:
    """Return the CPU share of the main thread of a real agent in silence; most of it is telemetry."""
    recording = folder / "silence.wav"
    noise = np.random.default_rng(1).normal(0.0, 8.0, int(16_000 * (seconds + 4 * _WARM_UP_S)))
    soundfile.write(recording, noise.astype(np.int16), 16_000)
    settings = {
        "mqtt.enabled": "false",
        "stdout.enabled": "true",
        "engine.kind": "scripted",
        "source.kind": "wav",
        "source.path": recording,
        "state_dir": folder / "state",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    agent = subprocess.Popen([sys.executable, "-m", "agent", "run", *options], stdout=subprocess.DEVNULL)
    try:
        time.sleep(_WARM_UP_S)
        began_ns, began_s = _ran_ns(agent.pid), time.monotonic()
        time.sleep(seconds)
        return (_ran_ns(agent.pid) - began_ns) / (time.monotonic() - began_s) / 1e9 * 100
    finally:
        agent.terminate()
        agent.wait()


def _ran_ns(pid: int) -> int:
    """CPU time of the main thread in ns (Documentation/scheduler/sched-stats.rst)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[0])


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--agent", type=float, metavar="S", help="measure a real agent for so long, too")
    args = parser.parse_args()
    print("| | a look | a message | its bytes | of a core at 60 s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        costs = [cost("this machine", ROOT, args.repeat)]
        for board in BOARDS:
            unfold(board, Path(scratch) / board)
            costs.append(cost(f"{board}, its files", Path(scratch) / board, args.repeat))
        for one in costs:
            figures = f"{one.look_ms:.3f} ms | {one.message_ms:.2f} ms | {one.message_bytes} | {one.share_pct:.3f} %"
            print(f"| {one.name} | {figures} |")
        if args.agent:
            pct = main_thread_pct(args.agent, Path(scratch))
            print(f"\nmain thread of an agent in a quiet room: {pct:.3f} % of a core over {args.agent:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
