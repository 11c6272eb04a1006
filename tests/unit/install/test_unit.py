import tomllib
from pathlib import Path

from agent.install import unit as shipped
from agent.install.unit import drop_in, unit
from tests.conftest import REPOSITORY


def test_the_shipped_unit_is_the_one_that_is_analysed() -> None:
    """What `systemd-analyze` has rated, but for the path of the program."""
    text = (REPOSITORY / "systemd" / "edgescribe.service").read_text(encoding="utf-8")
    program = "/opt/edgescribe/current/bin/edgescribe"
    assert unit(Path(program)) == text
    assert unit(Path("/opt/x/bin/edgescribe")) == text.replace(program, "/opt/x/bin/edgescribe")


def test_every_drop_in_can_be_had() -> None:
    """By its name, as it lies in `systemd/drop-ins`."""
    for path in (REPOSITORY / "systemd" / "drop-ins").glob("*.conf"):
        assert drop_in(path.stem) == path.read_text(encoding="utf-8")


def test_a_wheel_carries_them_where_they_are_looked_for() -> None:
    """pyproject.toml puts the folder beside the module."""
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    target = build["targets"]["wheel"]["force-include"]["systemd"]
    assert REPOSITORY / target == Path(shipped.__file__).with_name("units")
