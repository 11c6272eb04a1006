"""Tasks of the role that decide what may come into force: played by the real Ansible, with this machine as device."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
KEEPER = REPOSITORY / "ansible/roles/agent/files/edgescribe_release.py"

pytestmark = pytest.mark.skipif(not PLAYBOOK.exists(), reason="Ansible is missing: pip install '.[dev]'")

Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Plays some files of tasks of the role, with variables that outdo its own, for devices of these names."""
    collection = tmp_path / "ansible_collections/edgescribe/fleet"
    collection.parent.mkdir(parents=True)
    collection.symlink_to(REPOSITORY / "ansible")

    def run(
        *files: str, variables: dict[str, Any], hosts: Sequence[str] = ("kitchen",), options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        role = "edgescribe.fleet.agent"
        tasks = [{"ansible.builtin.include_role": {"name": role, "tasks_from": file}} for file in files]
        book = [{"hosts": "all", "connection": "local", "gather_facts": False, "tasks": tasks}]
        (tmp_path / "play.yml").write_text(json.dumps(book), encoding="utf-8")
        command = [str(PLAYBOOK), "play.yml", "--inventory", f"{','.join(hosts)},", *options]
        command += ["--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable, **variables})]
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}/programs:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
            "ANSIBLE_HOME": str(tmp_path / ".ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(("forks", "status"), [(4, 0), (3, 2)])
def test_a_batch_takes_no_longer_than_the_clock_of_its_devices(play: Play, forks: int, status: int) -> None:
    """Eight devices, 40 s each: two rounds are within 100 s, three are not, and what helps is said."""
    hosts = [f"room-{number}" for number in range(8)]
    variables = {"edgescribe_confirm_within_s": 100, "edgescribe_settle_s": 10}
    result = play("deadline.yml", variables=variables, hosts=hosts, options=("--forks", str(forks)))
    assert result.returncode == status, result.stdout
    assert ("more than 120" in result.stdout and "`-f`" in result.stdout) is bool(status)


class Device:
    """Files of a device in a folder, kept by the real `edgescribe-release`, with a systemctl that does nothing."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "device"
        self.next = self.root / "var/lib/edgescribe-release/next"
        self.tool = folder / "programs/edgescribe-release"
        self.tool.parent.mkdir()
        for name, text in (
            (self.tool, f'exec {sys.executable} {KEEPER} --root {self.root} "$@"'),
            (folder / "programs/systemctl", "exit 0"),
        ):
            name.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            name.chmod(0o755)

    @property
    def variables(self) -> dict[str, Any]:
        """What tells the role where everything is."""
        return {
            "edgescribe__opt": str(self.root / "opt/edgescribe"),
            "edgescribe__next": str(self.next),
            "edgescribe__tool": str(self.tool),
        }

    def install(self, release: str, lock: str) -> None:
        """A release whose program does nothing, as built from the list of wheels with this digest."""
        folder = self.root / "opt/edgescribe/releases" / release
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/edgescribe").write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / "bin/edgescribe").chmod(0o755)
        (folder / ".requirements.sha256").write_text(f"{lock}\n", encoding="ascii")

    def stage(self, release: str) -> None:
        """Ask for a release, as the last play did that came by."""
        link = self.next / "opt/edgescribe/current"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{release}")

    def keep(self, *verb: str) -> None:
        """Call `edgescribe-release`."""
        environment = {"PATH": f"{self.tool.parent}:/usr/bin:/bin"}
        subprocess.run([str(self.tool), *verb], env=environment, check=True, capture_output=True)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """One on which 1.0 was confirmed."""
    made = Device(tmp_path)
    made.install("1.0", "of-1.0")
    made.stage("1.0")
    made.keep("activate")
    made.keep("confirm")
    return made


def test_a_play_that_brought_another_ones_release_into_force_is_not_green(play: Play, device: Device) -> None:
    """Two operators at once share what is staged: who asked for 2.0 does not hear that all is well while it is 1.0."""
    device.install("2.0", "of-2.0")
    result = play("activate.yml", variables={**device.variables, "edgescribe_version": "2.0"})
    assert result.returncode == 2, result.stdout
    assert "1.0 was staged when 2.0 should have come into force" in " ".join(result.stdout.split())


def test_a_release_that_failed_may_be_built_anew_and_one_in_use_may_not(play: Play, device: Device) -> None:
    """Same version, other wheels: what was never confirmed is known to nobody; one in use means what it meant."""
    device.install("2.0", "of-2.0")
    house = device.root.parent / "house/aarch64-armv8-a"
    house.mkdir(parents=True)
    (house / "requirements.txt").touch()
    lock = {"stat": {"checksum": "of-another"}}
    variables = {
        **device.variables,
        "edgescribe_wheelhouse": str(house.parent),
        "edgescribe__class": house.name,
        "edgescribe__lock": lock,
    }
    refused = play("release.yml", variables={**variables, "edgescribe_version": "1.0"}, options=("--check",))
    assert refused.returncode == 2, refused.stdout
    assert "from another requirements.txt than that of aarch64-armv8-a" in " ".join(refused.stdout.split())
    built = play("release.yml", variables={**variables, "edgescribe_version": "2.0"}, options=("--check",))
    assert built.returncode == 0, built.stdout
    assert "Make the virtual environment" in built.stdout
    known = {**variables, "edgescribe_version": "2.0", "edgescribe__lock": {"stat": {"checksum": "of-2.0"}}}
    assert "changed=0" in play("release.yml", variables=known, options=("--check",)).stdout
