"""Machines that are not here: literal /sys and /proc trees of boards, unfolded from one text file each.

`== PATH` begins a file, `== PATH -> TARGET` is a link as sysfs has them, `#` in front of the first of them is about
the source.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "data" / "boards"
BOARDS: Final = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def unfold(board: str, root: Path) -> list[Path]:
    """Write the tree of `board` below `root`; return its files."""
    files: list[Path] = []
    for entry in (FOLDER / f"{board}.txt").read_text(encoding="ascii").split("\n== ")[1:]:
        head, _, text = entry.partition("\n")
        name, arrow, target = head.partition(" -> ")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
            continue
        # The device tree ends its strings with a NUL byte, everybody else with the end of the line.
        end = "\0" if "device-tree" in name else "\n"
        path.write_text(text.rstrip("\n") + end, encoding="ascii")
        files.append(path)
    return files
