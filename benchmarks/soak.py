"""Hours of speech through the whole agent: does anything grow, get slower, or go missing?

    python benchmarks/soak.py RECORDING --hours 2                    # read as fast as it can be transcribed
    python benchmarks/soak.py RECORDING --hours 1 --paced            # through libasound, in real time
    python benchmarks/soak.py RECORDING --hours 0.25 --kills 500     # and kill the engine at random moments

The recording is played over and over to `edgescribe run`, with a real mosquitto. Without `--set` the engine is the
scripted one, which needs no CPU time; `--set engine.kind=whisper_cpp` takes a real one. The script reads the agent's
memory, descriptors and threads once a second. `--kills` first plays everything without kills, and then compares. The
exit status is 1 if a text is missing or a figure grows by more than 2 %.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from fleet_broker import Broker
from soak_figures import Figures, table
from soak_run import Options, soak

_MAX_HOURS: Final = 200.0
_MAX_KILLS: Final = 10_000


def main() -> int:
    """Run it, and print the figures."""
    args = _arguments()
    options = Options(args.recording, args.hours * 3_600.0, tuple(args.set), paced=args.paced)
    figures = _run(options, args.kills)
    print(json.dumps(figures.as_dict(), indent=2) if args.json else table(figures))
    return 0 if figures.sound else 1


def _run(options: Options, kills: int) -> Figures:
    with (
        tempfile.TemporaryDirectory(prefix="edgescribe-soak-", dir=Path.cwd()) as folder,
        Broker(Path(folder), nodelay=True) as broker,
    ):
        reference = soak(options, Path(folder), broker.port).words if kills else None
        return soak(options, Path(folder), broker.port, kills).figures(reference)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, help="speech, as WAV, FLAC, OGG or MP3")
    parser.add_argument("--hours", type=float, default=2.0, help="of sound")
    parser.add_argument("--paced", action="store_true", help="in real time, through a microphone made of a FIFO")
    parser.add_argument("--kills", type=int, default=0, help="of the engine's process, spread over the run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the agent")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    args = parser.parse_args()
    if not 0.0 < args.hours <= _MAX_HOURS or not 0 <= args.kills <= _MAX_KILLS:
        parser.error(f"--hours is more than 0 and at most {_MAX_HOURS:.0f}, --kills at most {_MAX_KILLS}")
    if not args.recording.is_file():
        parser.error(f"{args.recording} is no file")
    return args


if __name__ == "__main__":
    sys.exit(main())
