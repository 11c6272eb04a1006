"""The unit and its drop-ins, as they came with this package."""

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from agent.errors import InstallError

UNIT: Final = "edgescribe.service"
DROP_INS: Final = "drop-ins"
_PLAIN_PATH: Final = re.compile(r"[\w./+-]+", re.ASCII)
_EXEC_START: Final = re.compile(r"^ExecStart=\S+", re.MULTILINE)


def unit(program: Path) -> str:
    """The unit that runs `program`.

    Raises:
        InstallError: the path has a character that means something else to systemd.
    """
    if not _PLAIN_PATH.fullmatch(str(program)):
        raise InstallError(
            f"{program}: systemd would misread this path: install edgescribe in a folder like /opt/edgescribe"
        )
    return _EXEC_START.sub(f"ExecStart={program}", _shipped().joinpath(UNIT).read_text(encoding="utf-8"), count=1)


def drop_in(name: str) -> str:
    """The drop-in `name`, such as `jetson`."""
    return _shipped().joinpath(DROP_INS, f"{name}.conf").read_text(encoding="utf-8")


def _shipped() -> Traversable:
    # In a wheel they lie beside this file, in a source checkout in the top-level folder `systemd`.
    in_wheel = resources.files("agent.install").joinpath("units")
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[2] / "systemd"
