"""Options that several verbs share, and how verbs end that have started other processes."""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.config.layers import Loaded, load, parse_override
from agent.config.settings import Settings
from agent.errors import ConfigError

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C or a signal ended."""
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
    """Return a type for an argument that is a number which `accepts` lets pass; `what` describes those in words."""

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


def add_seconds_option(parser: argparse.ArgumentParser) -> None:
    """Add `--seconds` to a verb that shows something live."""
    above_0 = number(float, "above 0", lambda seconds: seconds > 0)
    parser.add_argument(
        "--seconds", type=above_0, default=math.inf, metavar="S", help="end after S seconds (default: at Ctrl-C)"
    )


def password_from(file: str) -> str:
    """Return the password in `file`, or on standard input if `file` is `-`.

    Raises:
        ConfigError: it cannot be read as text, or is empty.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not text"
        raise ConfigError(f"--password-file {file} cannot be read ({why})") from error
    if not (password := text.removeprefix("\ufeff").strip()):  # some editors write a byte order mark
        raise ConfigError(f"--password-file {file}: there is no password in it")
    return password


def engine_kind_for(model: str) -> str:
    """Return the engine for a model of `--model`: whisper.cpp takes everything but CTranslate2 folders."""
    is_folder = os.path.isdir(model)  # noqa: PTH112 - never raises, not even in a folder that this user may not enter
    return "faster_whisper" if is_folder or model.endswith("-ct2") else "whisper_cpp"


def options_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the arguments that `add_settings_options` parsed, for another `edgescribe`."""
    file = () if args.config is None else ("--config", str(args.config.absolute()))
    return (*file, *(part for override in args.overrides for part in ("--set", override)))


def load_from(args: argparse.Namespace, **convenience: object) -> Loaded:
    """Return the settings that the command line asks for.

    Args:
        args: Arguments that `add_settings_options` parsed.
        convenience: Values of a verb's own options, by key with `__` for the dot (`source__kind="wav"`); None is left
            out. `--set` wins over them.

    Raises:
        ConfigError: see `config.layers.load`.
    """
    overrides = {key.replace("__", "."): value for key, value in convenience.items() if value is not None}
    overrides.update(parse_override(argument) for argument in args.overrides)
    return load(args.config, overrides)


def settings_from(args: argparse.Namespace, **convenience: object) -> Settings:
    """Return the settings as `load_from` does, without their origins."""
    return load_from(args, **convenience).settings


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, as Ctrl-C is. A signal that `nohup` ignores stays ignored."""
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
