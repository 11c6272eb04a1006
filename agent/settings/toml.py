"""The little of TOML that Python's standard library lacks: finding the line of a key, and writing values."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
KEY = re.compile(r"""\s*([A-Za-z0-9_."' -]+?)\s*=""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Line (from 1) on which `path` is set in the TOML document `text`; None if it is written in an unusual way.

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


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def value(of: object) -> str:
    """`of` as a TOML value.

    Raises:
        TypeError: settings hold text, paths, numbers, booleans and lists of these; nothing else.
    """
    match of:
        case bool():
            return str(of).lower()
        case int() | float():
            return repr(of)
        case str() | Path():
            # JSON's escapes are a subset of those of a TOML basic string.
            return json.dumps(str(of), ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(value(item) for item in of)}]"
        case _:
            msg = f"no TOML value for {type(of).__name__}"
            raise TypeError(msg)
