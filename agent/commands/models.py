"""`edgescribe models`: what models there are, and bringing them here."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agent.commands.options import add_settings_options, settings_from
from agent.errors import ModelError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from agent.config.settings import Settings
    from agent.models.catalogue import Model
    from agent.models.download import Progress
    from agent.models.store import Store

_MB = 1e6
QUANTISATION_NAMES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
"""The keys of `quantise.QUANTISATIONS`, which takes numpy to import."""
_EXAMPLES = """\
examples:
  edgescribe models pull tiny.en-q4_0
  edgescribe models convert ./my-finetune ./my-finetune-q8_0.bin --type q8_0
  edgescribe models trust ./my-finetune-q8_0.bin
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `models list`."""

    name: str
    format: str
    size_bytes: int
    languages: str
    licence: str
    installed: bool


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb and what it can do."""
    parser = subparsers.add_parser(
        "models",
        help="list, fetch, verify and make models",
        description="What models there are, and bringing them here.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all models, and which are on this device")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    pull = actions.add_parser("pull", help="fetch or make models, and verify them")
    pull.add_argument("names", nargs="+", metavar="NAME")
    verify = actions.add_parser("verify", help="read models again and compare their digests")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all on this device")
    remove = actions.add_parser("remove", help="delete a model")
    remove.add_argument("name", metavar="NAME")
    for action, work in ((listing, _list), (pull, _pull), (verify, _verify), (remove, _remove)):
        add_settings_options(action)
        action.set_defaults(run=run, work=work)
    _add_own(actions)


def _add_own(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    converting = actions.add_parser("convert", help="make a ggml file from a CTranslate2 or Hugging Face folder")
    converting.add_argument("source", type=Path, metavar="FOLDER")
    converting.add_argument("target", type=Path, metavar="OUT.bin")
    converting.add_argument("--type", choices=["f16", *QUANTISATION_NAMES], default="f16", help="default: %(default)s")
    converting.set_defaults(run=run, work=_convert)
    quantising = actions.add_parser("quantise", aliases=["quantize"], help="make a ggml file smaller")
    quantising.add_argument("source", type=Path, metavar="IN.bin")
    quantising.add_argument("target", type=Path, metavar="OUT.bin")
    quantising.add_argument("--type", choices=QUANTISATION_NAMES, required=True)
    quantising.set_defaults(run=run, work=_quantise)
    trusting = actions.add_parser("trust", help="accept a model of your own as it is now")
    trusting.add_argument("path", type=Path, metavar="FILE_OR_FOLDER")
    add_settings_options(trusting)
    trusting.set_defaults(run=run, work=_trust)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    status: int = args.work(args)
    return status


def _store(args: argparse.Namespace) -> "Store":
    return _store_of(settings_from(args))


def _store_of(settings: "Settings") -> "Store":
    from agent.config.layers import models_dir
    from agent.models.catalogue import load_catalogue
    from agent.models.store import Store

    return Store(models_dir(settings), load_catalogue())


def _list(args: argparse.Namespace) -> int:
    store = _store(args)
    rows = [_row(model, installed=store.has(model.name)) for model in store.catalogue.models]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            here = "here" if row.installed else "-"
            size = f"{row.size_bytes / _MB:7.1f} MB"
            print(f"{row.name:24} {size}  {row.format:12} {row.languages:13} {row.licence}  {here}")
    return 0


def _row(model: "Model", *, installed: bool) -> Row:
    return Row(model.name, model.format, model.size_bytes, model.languages, model.licence, installed)


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    from agent.messages.presentation import colours

    table = Table("name", "size", "format", "languages", "licence", "on this device", box=None, header_style="bold")
    for row in rows:
        size = f"{row.size_bytes / _MB:.1f} MB"
        here = "[green]yes[/]" if row.installed else "[dim]–[/]"
        table.add_row(row.name, size, row.format, row.languages, row.licence, here)
    table.columns[1].justify = "right"
    console = Console(color_system=colours())
    console.print(table)
    console.print("[dim]edgescribe models pull NAME[/]")


def _pull(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    catalogue = _store_of(settings).catalogue
    for name in args.names:
        catalogue.find(name)  # a misspelt name is said before anything is fetched
    for name in args.names:
        print(f"{name}: {pull(name, settings)}")
    return 0


def pull(name: str, settings: "Settings") -> Path:
    """Bring a model into the store and show how it goes; return its path.

    Raises:
        ModelError: see `Store.pull`.
    """
    sources = settings.models
    with _progress() as progress:
        return _store_of(settings).pull(name, hub_url=sources.hub_url, use_mirror=sources.mirror, progress=progress)


def _verify(args: argparse.Namespace) -> int:
    store = _store(args)
    names = args.names or [model.name for model in store.installed()]
    if not names:
        print("no models on this device")
    failed = False
    for name in names:
        try:
            store.verify(name)
        except ModelError as error:
            failed = True
            print(f"edgescribe: {error}", file=sys.stderr)
        else:
            print(f"{name}: sound")
    return ModelError.exit_code if failed else 0


def _remove(args: argparse.Namespace) -> int:
    _store(args).remove(args.name)
    print(f"{args.name}: removed")
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


def _trust(args: argparse.Namespace) -> int:
    print(f"{args.path}: sha256 {_store(args).trust(args.path)}")
    return 0


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar where somebody looks, lines where not."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    with Bar() as bar:
        yield bar


class Lines:
    """Plain lines on standard error: what begins, and every quarter."""

    def __init__(self) -> None:
        self._quarters: dict[str, int] = {}

    def note(self, message: str) -> None:
        """Print it."""
        print(message, file=sys.stderr, flush=True)

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Print when another quarter is there."""
        quarter = 4 * done_bytes // total_bytes
        if quarter > self._quarters.get(label, 0):
            self._quarters[label] = quarter
            print(f"{label}: {25 * quarter} % of {total_bytes / _MB:.1f} MB", file=sys.stderr, flush=True)


class Bar:
    """A progress bar in the terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, message: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(message, style="dim", markup=False, highlight=False)

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Move the bar of `label`, making it at first."""
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=total_bytes)
        self._bar.update(self._tasks[label], completed=done_bytes)
