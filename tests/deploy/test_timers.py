"""The units that the Ansible role brings: rendered as it does, and understood by systemd line by line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from tests.conftest import REPOSITORY

ROLE = REPOSITORY / "ansible" / "roles" / "agent"

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is missing: apt install systemd"
)


def rendered(folder: Path, **inventory: str) -> list[Path]:
    """All units of the role in `folder`, with programs that exist here in the place of theirs."""
    variables: dict[str, Any] = {
        **yaml.safe_load((ROLE / "defaults/main/role.yml").read_text(encoding="utf-8")),
        "ansible_managed": "Ansible managed",
        "edgescribe__tool": sys.executable,
        "edgescribe__pull_tool": sys.executable,
        "edgescribe__state": "/var/lib/edgescribe-release",
        "edgescribe_pull_program": sys.executable,
        "edgescribe_pull_url": "https://git.example/fleet.git",
        "inventory_hostname": "kitchen",
        **inventory,
    }
    units = []
    for template in sorted((ROLE / "templates").glob("edgescribe-*.j2")):
        unit = folder / template.stem
        text = jinja2.Template(template.read_text(encoding="utf-8"), keep_trailing_newline=True).render(variables)
        unit.write_text(text, encoding="utf-8")
        units.append(unit)
    return units


def text_of(name: str, folder: Path, **inventory: str) -> str:
    """What one of them says."""
    (unit,) = (unit for unit in rendered(folder, **inventory) if unit.name == name)
    return unit.read_text(encoding="utf-8")


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing at all; it would exit with 0 on unknown keys."""
    units = rendered(tmp_path)
    assert sorted(unit.suffix for unit in units) == [".service"] * 3 + [".timer"] * 2
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("", "")


def test_each_device_pulls_at_a_moment_of_its_own(tmp_path: Path) -> None:
    """A fleet does not ask in chorus."""
    text = text_of("edgescribe-pull.timer", tmp_path)
    assert re.search(r"^RandomizedDelaySec=\d+$", text, re.MULTILINE)
    assert "FixedRandomDelay=true" in text


def test_the_clock_goes_on_after_a_power_cut(tmp_path: Path) -> None:
    """The timer that takes back what is not confirmed counts from its start, and starts with the machine."""
    text = text_of("edgescribe-rollback.timer", tmp_path)
    assert re.search(r"^OnActiveSec=600$", text, re.MULTILINE)
    assert "WantedBy=timers.target" in text


def test_what_takes_the_device_down_does_not_get_a_second_trial(tmp_path: Path) -> None:
    """Whatever waits to be confirmed as the device starts is taken back, however short it stays up each time."""
    text = text_of("edgescribe-rollback-at-boot.service", tmp_path)
    assert "ConditionPathExists=/var/lib/edgescribe-release/pending" in text
    assert "WantedBy=multi-user.target" in text


@pytest.mark.parametrize("name", ["edgescribe-rollback.service", "edgescribe-rollback-at-boot.service"])
def test_taking_back_is_tried_until_it_is_done(tmp_path: Path, name: str) -> None:
    """Each is started once; a full disk at that moment must not leave a bad release in force."""
    text = text_of(name, tmp_path)
    assert "Restart=on-failure" in text
    assert "StartLimitIntervalSec=0" in text


def test_the_collection_ships_the_projects_own_unit() -> None:
    """What the role installs are this project's unit and drop-ins, by links; a built collection has the files."""
    assert (ROLE / "files/edgescribe.service").resolve() == REPOSITORY / "systemd" / "edgescribe.service"
    own = {path.name for path in (REPOSITORY / "systemd" / "drop-ins").iterdir()}
    shipped = {path.name: path.resolve() for path in (ROLE / "files/drop-ins").iterdir()}
    assert set(shipped) == own
    assert all(path.parent == REPOSITORY / "systemd" / "drop-ins" for path in shipped.values())
