"""Draw `docs/top.svg`, the picture of `edgescribe top`, from the output of a real agent.

edgescribe top --once --json | python docs/top_picture.py docs/top.svg

The one in this folder: the bundled recording in real time with tiny.en-q8_0 on a PC, and `telemetry.host_root` at the
/sys tree of a Raspberry Pi 4 (`tests/support/boards.py`), since that PC has no sensors.
"""

import io
import sys
from pathlib import Path

from rich.console import Console

from agent.terminal.device import local_device
from agent.terminal.render import picture

WIDTH = 92
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; \
font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own frame without its web font: a picture in a repository must not load files."""


def draw(line: bytes) -> str:
    """Return the picture of a line as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print(picture(local_device(line, 0.0)))
    return console.export_svg(title="edgescribe top", code_format=FRAME, unique_id="top")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(sys.stdin.buffer.readline()), encoding="utf-8")
