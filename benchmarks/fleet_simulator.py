"""A fleet at one broker: N devices that connect all at once, talk, and lose the broker for a while.

    python benchmarks/fleet_simulator.py --devices 1000

Each device is the shipped sink with its outbox, its reconnect policy, its payloads and its telemetry schedule; only the
microphone and the engine are left out. The broker is a real mosquitto on a free port of loopback, the subscriber a
client of its own with a durable session. All clocks are the machine's monotonic one, so that times across processes
compare. Devices share few processes, so that latencies include their waiting for each other: a real fleet is faster.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleet_broker import Broker, Observer
from fleet_devices import Plan, Shard
from fleet_figures import Figures, Observation, table

MAX_DEVICES: Final = 2_000
MAX_PHASE_S: Final = 300.0
_LIMIT_S: Final = 180.0
"""How long the slowest device is waited for."""
_DESCRIPTORS_PER_DEVICE: Final = 6


def main() -> int:
    """Run all phases and print the figures; 1 if a transcript was lost or a device did not come back."""
    args = _arguments()
    _raise_descriptor_limit(args.devices)
    with (
        tempfile.TemporaryDirectory(prefix="edgescribe-fleet-") as folder,
        Broker(Path(folder), nodelay=not args.nagle) as broker,
        Observer(broker.port) as observer,
    ):
        figures = _simulate(args, Path(folder), broker, observer)
    if args.json:
        print(json.dumps(figures.as_dict(), indent=2))
    else:
        print(table(figures))
    return 0 if figures.sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000, help=f"at most {MAX_DEVICES}")
    parser.add_argument("--processes", type=int, default=4, help="that share the devices")
    parser.add_argument("--outbox", choices=("memory", "balanced", "strict"), default="memory", help="of each device")
    parser.add_argument("--telemetry-s", type=float, default=60.0, help="telemetry interval of a device")
    parser.add_argument("--speech-s", type=float, default=20.0, help="mean time between two utterances of a device")
    parser.add_argument("--steady-s", type=float, default=30.0, help="length of the steady phase")
    parser.add_argument("--burst", type=int, default=10, help="transcripts that each device sends at once")
    parser.add_argument("--outage-s", type=float, default=5.0, help="how long the broker is away")
    parser.add_argument("--nagle", action="store_true", help="mosquitto's default: it holds small packets back")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    args = parser.parse_args()
    if not 1 <= args.devices <= MAX_DEVICES or not 1 <= args.processes <= args.devices:
        parser.error(f"--devices is 1 to {MAX_DEVICES}, --processes at most as many")
    if not 0 < args.steady_s <= MAX_PHASE_S or not 0 <= args.outage_s <= MAX_PHASE_S or not 0 <= args.burst <= 100:  # noqa: PLR2004 - a bound
        parser.error(f"a phase lasts at most {MAX_PHASE_S:.0f} s, a burst has at most 100 transcripts")
    return args


def _raise_descriptor_limit(devices: int) -> None:
    """Shards and the broker inherit it."""
    wanted = _DESCRIPTORS_PER_DEVICE * devices + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            sys.exit(f"{devices} devices need {wanted} open files, and `ulimit -Hn` is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _simulate(args: argparse.Namespace, folder: Path, broker: Broker, observer: Observer) -> Figures:
    context = multiprocessing.get_context("spawn")
    plan = Plan(broker.port, args.outbox, args.telemetry_s, args.speech_s, str(folder))
    names = [f"sim-{number:04}" for number in range(args.devices)]
    shards = [Shard(context, plan, names[index :: args.processes]) for index in range(args.processes)]
    figures = Figures(args.devices, args.outbox, f"{platform.machine()}, {multiprocessing.cpu_count()} cores")
    try:
        _phases(args, broker, observer, shards, figures)
    finally:
        for shard in shards:
            shard.kill()
    return figures


def _phases(
    args: argparse.Namespace, broker: Broker, observer: Observer, shards: list[Shard], figures: Figures
) -> None:
    seen = observer.seen
    for shard in shards:
        shard.await_ready()
    _say(f"storm: {args.devices} devices connect at once")
    storm_s = time.monotonic()
    for shard in shards:
        shard.tell("start")
    _await(lambda: len(seen.online_since(storm_s)) == args.devices)
    figures.connect_s = seen.delays_since(storm_s)
    figures.storm_peak = seen.peak_rate(storm_s, time.monotonic())

    time.sleep(2.0)
    _say(f"steady: {args.steady_s:.0f} s")
    begin_s, cpu_s = time.monotonic(), broker.cpu_s
    time.sleep(args.steady_s)
    end_s = time.monotonic()
    figures.steady_rate = seen.rate(begin_s, end_s)
    figures.steady_latency_s = seen.latencies(begin_s, end_s)
    figures.broker_cpu_pct = 100 * (broker.cpu_s - cpu_s) / (end_s - begin_s)
    figures.broker_rss_mb = broker.rss_mb

    if args.burst:
        _burst(args, shards, seen, figures)
    _restart(args, broker, shards, seen, figures)
    _say("end: delivering the waiting messages")
    sent = {name: seq for shard in shards for name, seq in shard.finish().items()}
    _await(lambda: not seen.missing(sent), limit_s=30.0)
    figures.sent = sum(sent.values())
    figures.lost = seen.missing(sent)
    figures.repeated = seen.repeated
    figures.failures = [failure for shard in shards for failure in shard.failures]


def _burst(args: argparse.Namespace, shards: list[Shard], seen: Observation, figures: Figures) -> None:
    total = args.burst * args.devices
    _say(f"burst: {total} transcripts at once")
    begin_s = time.monotonic()
    for shard in shards:
        shard.tell(f"burst {args.burst}")
    _await(lambda: seen.bursts == total)
    took_s = max(0.001, seen.last_burst_s - begin_s)
    figures.burst_rate = total / took_s


def _restart(
    args: argparse.Namespace, broker: Broker, shards: list[Shard], seen: Observation, figures: Figures
) -> None:
    _say(f"restart: the broker is away for {args.outage_s:.0f} s")
    figures.outage_s = args.outage_s
    broker.stop()
    time.sleep(args.outage_s)
    broker.start()
    up_s = time.monotonic()
    _await(lambda: len(seen.online_since(up_s)) == args.devices)
    figures.back_s = seen.delays_since(up_s)
    spoken = {name: seq for shard in shards for name, seq in shard.count().items()}
    _await(lambda: not seen.missing(spoken))
    figures.drained_s = time.monotonic() - up_s
    figures.recovery_peak = seen.peak_rate(up_s, time.monotonic())


def _await(condition: Callable[[], bool], limit_s: float = _LIMIT_S) -> None:
    """Wait until the condition holds, at most `limit_s`. The figures show missing messages."""
    deadline_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)


def _say(words: str) -> None:
    print(f"{words} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
