"""Somebody who operates three devices with Ansible: an inventory, the collection, a key."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

PROGRAMS: Final = Path(sys.executable).parent
LIMIT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of a playbook came to."""

    status: int
    """Exit status."""
    output: str
    took_s: float
    hosts: dict[str, dict[str, int]]
    """Of each host that took part: `ok`, `changed`, `unreachable`, `failed`, …"""

    @property
    def changed(self) -> int:
        """Changes of all hosts together."""
        return sum(host["changed"] for host in self.hosts.values())


class Site:
    """A folder with all that an operator has."""

    def __init__(self, folder: Path, collection: Path) -> None:
        self._folder = folder
        self.key = folder / "key"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        build = _run(
            str(PROGRAMS / "ansible-galaxy"), "collection", "build", str(collection), "--output-path", str(folder)
        )
        archive = re.search(r"at (\S+\.tar\.gz)", build)
        assert archive, build
        install = ("collection", "install", "--offline", "--collections-path", str(folder / "collections"))
        _run(str(PROGRAMS / "ansible-galaxy"), *install, archive[1])

    def write_inventory(self, hosts: dict[str, dict[str, Any]], variables: dict[str, Any]) -> None:
        """JSON is YAML, and an inventory."""
        group = {"hosts": hosts, "vars": variables}
        inventory = {"all": {"children": {"edgescribe": group}}}
        (self._folder / "inventory.yml").write_text(json.dumps(inventory, indent=1), encoding="utf-8")

    def start(self, playbook: str, *options: str, **variables: Any) -> "subprocess.Popen[str]":
        """Begin a run of one of the collection's playbooks."""
        command = [
            str(PROGRAMS / "ansible-playbook"),
            f"edgescribe.fleet.{playbook}",
            "-i",
            str(self._folder / "inventory.yml"),
        ]
        command += ["--extra-vars", json.dumps(variables), *options]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            cwd=self._folder,
        )

    def finish(self, process: "subprocess.Popen[str]", began_s: float) -> Run:
        """Wait for the end of a run."""
        output, _ = process.communicate(timeout=LIMIT_S)
        print(output)  # noqa: T201 - shown when a test fails
        recap = output.partition("PLAY RECAP")[2]
        hosts = {
            line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
            for line in recap.splitlines()
            if "ok=" in line
        }
        return Run(process.returncode, output, time.monotonic() - began_s, hosts)

    def play(self, playbook: str, *options: str, **variables: Any) -> Run:
        """Run one of the collection's playbooks."""
        began_s = time.monotonic()
        return self.finish(self.start(playbook, *options, **variables), began_s)

    @property
    def _environment(self) -> dict[str, str]:
        ssh = (
            f"-i {self.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            " -o ControlMaster=auto -o ControlPersist=60 -o ConnectTimeout=10"
            " -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
        )
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self._folder / "collections"),
            "ANSIBLE_HOME": str(self._folder / ".ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_ARGS": ssh,
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "LC_ALL": "C.UTF-8",
        }


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.fail(f"{' '.join(command)}: {result.stdout}{result.stderr}")
    return result.stdout
