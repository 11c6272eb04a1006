"""What models there are, and bringing them here."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from agent.commands.options import add_settings_options, settings_from
from agent.config.layers import models_dir
from agent.config.settings import Settings
from agent.errors import ModelError
from agent.messages.presentation import colours
from agent.models.catalogue import Quantisation, load_catalogue
from agent.models.download import Progress
from agent.models.pull import pull_model
from agent.models.store import Store

_MB: Final = 1e6
TYPES: Final = get_args(Quantisation)
_FIELDS: Final = ("name", "format", "size_bytes", "languages", "licence")
EPILOG: Final = """\
examples:
  edgescribe models pull tiny.en-q4_0
  edgescribe models convert ./my-finetune ./my-finetune-q8_0.bin --type q8_0
  edgescribe models trust ./my-finetune-q8_0.bin
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all models, and which are on this device")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    pulling = actions.add_parser("pull", help="fetch or make models, and verify them")
    pulling.add_argument("names", nargs="+", metavar="NAME")
    verifying = actions.add_parser("verify", help="read models again and compare their digests")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all on this device")
    removing = actions.add_parser("remove", help="delete a model")
    removing.add_argument("name", metavar="NAME")
    converting = actions.add_parser("convert", help="make a ggml file from a CTranslate2 or Hugging Face folder")
    converting.add_argument("source", type=Path, metavar="FOLDER")
    converting.add_argument("target", type=Path, metavar="OUT.bin")
    converting.add_argument("--type", choices=TYPES, default="f16", help="default: %(default)s")
    quantising = actions.add_parser("quantise", aliases=["quantize"], help="make a ggml file smaller")
    quantising.add_argument("source", type=Path, metavar="IN.bin")
    quantising.add_argument("target", type=Path, metavar="OUT.bin")
    quantising.add_argument("--type", choices=TYPES[1:], required=True)
    trusting = actions.add_parser("trust", help="accept a model of your own as it is now")
    trusting.add_argument("path", type=Path, metavar="FILE_OR_FOLDER")
    converting.set_defaults(action=_convert)
    quantising.set_defaults(action=_quantise)
    works = {listing: _list, pulling: _pull, verifying: _verify, removing: _remove, trusting: _trust}
    for action, work in works.items():
        action.set_defaults(action=work)
        add_settings_options(action)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    status: int = args.action(args)
    return status


def _store_of(settings: Settings) -> Store:
    return Store(models_dir(settings), load_catalogue())


def _list(args: argparse.Namespace) -> int:
    store = _store_of(settings_from(args))
    rows: list[dict[str, Any]] = [
        {name: getattr(model, name) for name in _FIELDS} | {"installed": store.has(model.name)}
        for model in store.catalogue.models
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            here = "here" if row["installed"] else "-"
            size = f"{row['size_bytes'] / _MB:7.1f} MB"
            print(f"{row['name']:24} {size}  {row['format']:12} {row['languages']:13} {row['licence']}  {here}")
    return 0


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table("name", "size", "format", "languages", "licence", "on this device", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for row in rows:
        here = "[green]yes[/]" if row["installed"] else "[dim]–[/]"
        size = f"{row['size_bytes'] / _MB:.1f} MB"
        table.add_row(row["name"], size, row["format"], row["languages"], row["licence"], here)
    Console(color_system=colours()).print(table, "[dim]edgescribe models pull NAME[/]", sep="\n")


def _pull(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    catalogue = load_catalogue()
    for name in args.names:
        catalogue.find(name)  # a misspelt name is said before anything is fetched
    for name in args.names:
        print(f"{name}: {pull(name, settings)}")
    return 0


def pull(name: str, settings: Settings) -> Path:
    """Bring a model into the store and show how it goes; return its path.

    Raises:
        ModelError: see `pull_model`.
    """
    store, sources = _store_of(settings), settings.models
    with _progress() as progress:
        return pull_model(store, name, hub_url=sources.hub_url, use_mirror=sources.mirror, progress=progress)


def _verify(args: argparse.Namespace) -> int:
    store = _store_of(settings_from(args))
    names = args.names or [model.name for model in store.installed()]
    if not names:
        print("no models on this device")
    status = 0
    for name in names:
        try:
            store.verify(name)
        except ModelError as error:
            status = error.exit_code
            print(f"edgescribe: {error}", file=sys.stderr)
        else:
            print(f"{name}: sound")
    return status


def _remove(args: argparse.Namespace) -> int:
    _store_of(settings_from(args)).remove(args.name)
    print(f"{args.name}: removed")
    return 0


def _trust(args: argparse.Namespace) -> int:
    print(f"{args.path}: sha256 {_store_of(settings_from(args)).trust(args.path)}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from agent.models.convert import convert
    from agent.models.ggml import TensorType

    convert(args.source, args.target, TensorType[args.type.upper()])
    return _report(args.target)


def _quantise(args: argparse.Namespace) -> int:
    from agent.models.ggml import QUANTISATIONS, quantise

    quantise(args.source, args.target, QUANTISATIONS[args.type])
    return _report(args.target)


def _report(path: Path) -> int:
    from agent.models.ggml import read_ggml

    model = read_ggml(path)
    layers = f"{model.hyper.n_audio_layer} + {model.hyper.n_text_layer} layers of {model.hyper.n_audio_state}"
    print(f"{path}: {model.type.name.lower()}, {layers}, {path.stat().st_size / _MB:.1f} MB")
    return 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, else lines."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with RichProgress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar)


class _Lines:
    """Plain lines on standard error: what begins, and every quarter."""

    def __init__(self) -> None:
        self._quarters: dict[str, int] = {}

    def note(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        quarter = 4 * done_bytes // total_bytes
        if quarter > self._quarters.get(label, 0):
            self._quarters[label] = quarter
            print(f"{label}: {25 * quarter} % of {total_bytes / _MB:.1f} MB", file=sys.stderr, flush=True)


class _Bar:
    """A progress bar in the terminal, one line a label; what begins stands above it."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def note(self, message: str) -> None:
        self._bar.console.print(message, style="dim", markup=False, highlight=False)

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=total_bytes)
        self._bar.update(self._tasks[label], completed=done_bytes)
