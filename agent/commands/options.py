"""What verbs share: `--config FILE` and `--set KEY=VALUE`, and how those end that have started other processes."""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent.config.layers import Loaded, load, parse_override
from agent.config.settings import Settings
from agent.errors import ConfigError

STDIN: Final = "-"
INTERRUPTED = 130
"""Exit status of a command that was ended by Ctrl-C or the like."""
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--set` to a verb."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (default: $EDGESCRIBE_CONFIG, else /etc/edgescribe/config.toml)",
    )
    add_overrides_option(parser, "override one setting, such as engine.threads=2; may be repeated")


def add_overrides_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--set`, with its line in `--help`."""
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=what)


def number(kind: type[int] | type[float], what: str, accepts: Callable[[float], bool]) -> Callable[[str], int | float]:
    """A type for arguments that are numbers; `what` says in words which of them `accepts` lets pass."""

    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            msg = f"must be {what}, not {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return value

    return parse


seconds: Final = number(float, "above 0", lambda seconds: seconds > 0)
"""The argument of `--seconds`."""


def password_from(file: str) -> str:
    """The password in `file`, or in what comes from standard input where `file` is `-`.

    Raises:
        ConfigError: it cannot be read as text, or is empty.
    """
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not text"
        raise ConfigError(f"--password-file {file} cannot be read ({why})") from error
    if not (password := text.removeprefix("\ufeff").strip()):  # some editors write a byte order mark
        raise ConfigError(f"--password-file {file}: there is no password in it")
    return password


def engine_kind_for(model: str) -> str:
    """The engine that a model given by `--model` is for; whisper.cpp takes everything but CTranslate2 folders."""
    is_folder = os.path.isdir(model)  # noqa: PTH112 - never raises, not even where this user may not look
    return "faster_whisper" if is_folder or model.endswith("-ct2") else "whisper_cpp"


def options_of(args: argparse.Namespace) -> tuple[str, ...]:
    """What `add_settings_options` parsed, as arguments for another `edgescribe`."""
    file = () if args.config is None else ("--config", str(args.config.absolute()))
    return (*file, *(part for override in args.overrides for part in ("--set", override)))


def load_from(args: argparse.Namespace, **convenience: object) -> Loaded:
    """The settings that `args` ask for.

    Args:
        args: What `add_settings_options` parsed.
        convenience: What a verb's own flags say, by key with `__` for the dot (`source__kind="wav"`); None is left
            out. `--set` wins over them, being the more explicit.

    Raises:
        ConfigError: see `config.layers.load`.
    """
    overrides = {key.replace("__", "."): value for key, value in convenience.items() if value is not None}
    overrides.update(parse_override(argument) for argument in args.overrides)
    return load(args.config, overrides)


def settings_from(args: argparse.Namespace, **convenience: object) -> Settings:
    """As `load_from`, for verbs that do not care where a value came from."""
    return load_from(args, **convenience).settings


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP are as good as Ctrl-C within: KeyboardInterrupt. What `nohup` ignores stays ignored."""
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
