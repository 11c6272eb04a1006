"""Finds the line of a key in TOML, and writes values: the standard library has neither."""

import json
import os
import re
import tomllib
from collections.abc import Sequence

from agent.errors import ConfigError

TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
KEY = re.compile(r"""\s*([A-Za-z0-9_."' -]+?)\s*=""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the line (from 1) that sets `path` in the TOML document `text`; None if its form is unusual.

    Knows tables and dotted keys. For a key inside an inline table it is the line on which that table begins.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := TABLE.match(line):
            table = _parts(header[1])
        elif key := KEY.match(line):
            here = (*table, *_parts(key[1]))
            if here == tuple(path[: len(here)]):
                return number
        if table == tuple(path) and header:
            return number
    return None


def line_of_error(error: tomllib.TOMLDecodeError, text: str) -> int:
    """Return the line (from 1) that Python's message names: `Invalid value (at line 3, column 9)`."""
    where = str(error).partition("(at line ")[2].partition(",")[0]
    return int(where) if where else text.count("\n") + 1


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def value(of: object) -> str:
    """Return `of` as a TOML value: a text, a path, a number, a boolean, or a list of these.

    Raises:
        ConfigError: a text is not Unicode, such as a path whose bytes are not UTF-8; TOML has no way to write it.
        TypeError: it is something else.
    """
    if of is None:
        msg = "TOML has no null"
        raise TypeError(msg)
    # JSON's escapes are a subset of those of a TOML basic string; TOML also wants DEL escaped.
    text = json.dumps(of, ensure_ascii=False, default=os.fspath).replace("\x7f", "\\u007f")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{of!r} is not UTF-8, and TOML cannot hold it: use another value") from error
    return text
