"""Measures the models on this device with the bundled sentences, chooses one, and says why.

Writes the result to calibration.json in the state folder, for engine.kind = "auto".

Examples:
    edgescribe calibrate --pull
    sudo edgescribe calibrate --minutes 10
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from agent.calibrate.candidates import memory_budget_mb, worth_pulling
from agent.calibrate.report import print_calibration
from agent.calibrate.run import calibrate, wanted
from agent.commands.models import pull
from agent.commands.options import add_settings_options, ended_in_order, number, settings_from
from agent.config.layers import models_dir
from agent.config.settings import Settings
from agent.diagnostics.facts import write_problem
from agent.errors import ModelError
from agent.models.calibration import NAME, CalibrationError, as_json, folder_of, installed_engines
from agent.models.catalogue import load_catalogue
from agent.models.store import Store

_MINUTES = 3.0
_minutes = number(float, "a number above 0 and at most 60", lambda minutes: 0 < minutes <= 60)  # noqa: PLR2004
_RESERVE_S = 10.0
"""Part of the given time that is not for measuring: imports, verification of models, ending the last process."""
_PIPED_WIDTH = 120
_NICE = 5
"""An agent that listens on the same machine has priority."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--minutes", type=_minutes, default=_MINUTES, help="time for measuring (default: %(default)g)")
    parser.add_argument(
        "--pull", action="store_true", help="first fetch the models that could suit; this time is not counted"
    )
    parser.add_argument("--json", action="store_true", help="print the file instead of the table")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the file."""
    settings = settings_from(args)
    file = folder_of(settings) / NAME
    if problem := write_problem(file.parent):  # before minutes of measuring
        raise CalibrationError(f"{file}: cannot be written ({problem}): run it as a user who may, or set state_dir")
    if args.pull:
        _pull(settings)

    os.nice(_NICE)
    seconds = 60 * args.minutes
    with ended_in_order(), _progress() as tell:
        calibration = calibrate(settings, max(seconds - _RESERVE_S, seconds / 2), tell)
    if args.json:
        print(as_json(calibration))
        return 0
    print_calibration(calibration, Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH))
    print(f"\nWritten to {file}.")
    if settings.engine.kind != "auto":
        print('To go by it, set engine.kind = "auto".')
    if calibration.language == "auto" and not any(one.english_only for one in calibration.measurements):
        print('If only English is spoken, set engine.language = "en" and calibrate again: its own models do better.')
    return 0


def _pull(settings: Settings) -> None:
    """Fetch the absent models that could suit. Go on if one cannot be fetched."""
    catalogue = load_catalogue()
    store = Store(models_dir(settings), catalogue)
    language, _threads = wanted(settings)
    for alternatives in worth_pulling(catalogue, installed_engines(), language, memory_budget_mb()):
        for name in alternatives:
            try:
                if not store.has(name):
                    pull(name, settings)
            except ModelError as error:
                print(f"edgescribe: going on without {name}: {error}", file=sys.stderr)
            else:
                break


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show each step on standard error: one line that changes on a terminal, else lines."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with console.status("looking around") as status:
        yield status.update
