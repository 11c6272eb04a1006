"""Draw `docs/demo.svg`, the picture of `edgescribe demo` in README, from a real run in a terminal.

script --quiet --command "stty cols 122; edgescribe demo" /dev/null | python -m docs.demo_picture docs/demo.svg
"""

import io
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from docs.top_picture import FRAME

WIDTH: Final = 122
COMMAND: Final = "make demo"
_MOVES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
"""Escape sequences that move the cursor or clear a line; colours end in `m`."""


def draw(output: str) -> str:
    """Return the picture of a terminal with the command and its output as SVG.

    The lines before the first one of the demonstration are left out: they are about the download of the model.
    """
    lines = [line.rpartition("\r")[2] for line in _MOVES.sub("", output.replace("\r\n", "\n")).strip().split("\n")]
    first = next(number for number, line in enumerate(lines) if "transcribes" in line)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    for line in lines[first:]:
        console.print(Text.from_ansi(line))
    return console.export_svg(title=COMMAND, code_format=FRAME, unique_id="demo")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(sys.stdin.read()), encoding="utf-8")
