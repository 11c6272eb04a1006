"""Measures the models on this device with the bundled sentences, chooses one, says why, and writes calibration.json.

The file lies in the state folder; engine.kind = "auto" goes by it.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from agent.calibrate.candidates import memory_budget_mb, worth_pulling
from agent.calibrate.report import print_calibration
from agent.calibrate.run import Tell, calibrate, wanted
from agent.commands.models import pull
from agent.commands.options import add_settings_options, ended_in_order, number, settings_from
from agent.config.layers import models_dir
from agent.config.settings import Settings
from agent.diagnostics.facts import write_problem
from agent.errors import ModelError
from agent.models.calibration import (
    NAME,
    Calibration,
    CalibrationError,
    as_json,
    folder_of,
    installed_engines,
)
from agent.models.catalogue import load_catalogue
from agent.models.store import Store

_MINUTES = 3.0
_minutes = number(float, "a number above 0 and at most 60", lambda minutes: 0 < minutes <= 60)  # noqa: PLR2004
_RESERVE_S = 10.0
"""Of the time that was given, for what stands around the measuring: imports, verification of models, the last process
that is ended."""
_PIPED_WIDTH = 120
_NICE = 5
"""An agent that listens on the same machine goes before."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--minutes", type=_minutes, default=_MINUTES, help="time for measuring (default: %(default)g)")
    parser.add_argument(
        "--pull", action="store_true", help="first fetch the models that could suit; takes as long as it takes"
    )
    parser.add_argument("--json", action="store_true", help="print the file instead of the table")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the file."""
    settings = settings_from(args)
    _must_be_able_to_keep_it(settings)
    if args.pull:
        _pull(settings)

    os.nice(_NICE)
    seconds = 60 * args.minutes
    with ended_in_order(), _told() as tell:
        calibration = calibrate(settings, max(seconds - _RESERVE_S, seconds / 2), tell)
    if args.json:
        print(as_json(calibration))
        return 0
    print_calibration(calibration, Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH))
    print(f"\nWritten to {folder_of(settings) / NAME}.")
    for hint in _hints(settings, calibration):
        print(hint)
    return 0


def _must_be_able_to_keep_it(settings: Settings) -> None:
    """Minutes of measuring for a file that cannot be written would be lost."""
    folder = folder_of(settings)
    if problem := write_problem(folder):
        remedy = "run it as a user who may, or set state_dir"
        raise CalibrationError(f"{folder / NAME}: cannot be written ({problem}): {remedy}")


def _hints(settings: Settings, calibration: Calibration) -> Iterator[str]:
    """What to do next, or otherwise."""
    if settings.engine.kind != "auto":
        yield 'To go by it, set engine.kind = "auto".'
    if calibration.language == "auto" and not any(one.english_only for one in calibration.measurements):
        yield 'If only English is spoken, set engine.language = "en" and calibrate again: its own models do better.'


def _pull(settings: Settings) -> None:
    """Fetch what could suit and is not here. One that cannot be had does not keep the others from being measured."""
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
def _told() -> Iterator[Tell]:
    """What is being done, on standard error: one line that changes on a terminal, else lines."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with console.status("looking around") as status:
        yield status.update
