"""Lists the Whisper models, and brings them to this device.

Examples:
    edgescribe models list
    edgescribe models pull tiny.en-q4_0
    edgescribe models convert ./my-finetune ./my-q8_0.bin --type q8_0
    edgescribe models trust ./my-q8_0.bin
"""

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
from rich.text import Text

from agent.commands.options import add_settings_options, settings_from
from agent.config.layers import models_dir
from agent.config.settings import Settings, WhisperCppSettings
from agent.errors import ModelError
from agent.messages.presentation import colours
from agent.models.catalogue import Quantisation, load_catalogue
from agent.models.download import Progress
from agent.models.pull import pull_model
from agent.models.store import Store

_MB: Final = 1e6
TYPES: Final = get_args(Quantisation)
_FIELDS: Final = ("name", "format", "size_bytes", "languages", "licence")
_ROW: Final = "{:24} {:>10}  {:12} {:13} {:8} {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, what: str, **more: Any) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", **more)

    listing = add("list", "all models, and which are on this device")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    pulling = add("pull", "fetch or make models, and verify them")
    pulling.add_argument("names", nargs="+", metavar="NAME")
    verifying = add("verify", "read models again and compare their digests")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all on this device")
    removing = add("remove", "delete a model")
    removing.add_argument("name", metavar="NAME")
    converting = add("convert", "make a ggml file from a CTranslate2 or Hugging Face folder")
    converting.add_argument("source", type=Path, metavar="FOLDER")
    converting.add_argument("target", type=Path, metavar="OUT.bin")
    converting.add_argument("--type", choices=TYPES, default="f16", help="default: %(default)s")
    quantising = add("quantise", "make a ggml file smaller", aliases=["quantize"])
    quantising.add_argument("source", type=Path, metavar="IN.bin")
    quantising.add_argument("target", type=Path, metavar="OUT.bin")
    quantising.add_argument("--type", choices=TYPES[1:], required=True)
    trusting = add("trust", "accept a model of your own in its present form")
    trusting.add_argument("path", type=Path, metavar="FILE_OR_FOLDER")
    converting.set_defaults(run=_convert)
    quantising.set_defaults(run=_quantise)
    works = {listing: _list, pulling: _pull, verifying: _verify, removing: _remove, trusting: _trust}
    for action, work in works.items():
        action.set_defaults(run=work)
        add_settings_options(action)


def _store_of(settings: Settings) -> Store:
    return Store(models_dir(settings), load_catalogue())


def _list(args: argparse.Namespace) -> int:
    store = _store_of(settings_from(args))
    models = [(model, store.has(model.name)) for model in store.catalogue.models]
    if args.json:
        fields = [{name: getattr(model, name) for name in _FIELDS} | {"installed": here} for model, here in models]
        print(json.dumps(fields, indent=2))
        return 0
    console = Console(color_system=colours(), highlight=False)
    console.print(Text(_ROW.format("name", "size", "format", "languages", "licence", "here"), "bold"), soft_wrap=True)
    for model, here in models:
        name = model.name + (" (default)" if model.name == WhisperCppSettings().model else "")
        size = f"{model.size_bytes / _MB:.1f} MB"
        row = _ROW.format(name, size, model.format, model.languages, model.licence, "here" if here else "-")
        console.print(Text(row, "green" if here else ""), soft_wrap=True)
    return 0


def _pull(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    catalogue = load_catalogue()
    for name in args.names:
        catalogue.find(name)  # reports a misspelt name before any download
    for name in args.names:
        print(f"{name}: {pull(name, settings)}")
    return 0


def pull(name: str, settings: Settings) -> Path:
    """Bring a model into the store and show the progress; return its path.

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
    console = Console(stderr=True, highlight=False, emoji=False)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with RichProgress(
        TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal
    ) as bar:
        yield _Progress(bar)


class _Progress:
    """Shows downloads on standard error: a bar for each on a terminal, else a line at every quarter."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def note(self, message: str) -> None:
        self._bar.console.print(Text(message, "dim"), soft_wrap=True)

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=total_bytes)
        self._bar.update(self._tasks[label], completed=done_bytes)
        quarter = 4 * done_bytes // total_bytes
        if self._bar.disable and quarter > 4 * self._done.get(label, 0) // total_bytes:
            print(f"{label}: {25 * quarter} % of {total_bytes / _MB:.1f} MB", file=sys.stderr, flush=True)
        self._done[label] = done_bytes
