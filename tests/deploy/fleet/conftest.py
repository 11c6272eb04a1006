import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.deploy.fleet.network import Network, answers
from tests.deploy.fleet.releases import Change, agent_wheel, dependencies, make_wheelhouse
from tests.deploy.fleet.site import Run, Site
from tests.deploy.systemd_host.host import CACHE, SystemdHost, make_base, missing
from tests.support.mosquitto import Mosquitto, free_port, program
from tests.support.receiver import eventually

MODEL = "tiny.en-q8_0"
NAMES = ("fleet-1", "fleet-2", "fleet-3")
BASE = CACHE / "base"
ACCESS = REPOSITORY / "docs" / "broker" / "edgescribe.acl"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Three devices, their broker, and who operates them."""

    hosts: dict[str, SystemdHost]
    network: Network
    site: Site
    broker: Mosquitto
    folder: Path
    variables: dict[str, Any]
    """What the inventory says of all of them."""
    wheels: tuple[Path, Path]
    """The agent's wheel, and a folder with the others."""

    @property
    def canary(self) -> SystemdHost:
        """The first."""
        return self.hosts[NAMES[0]]

    def release(self, version: str, change: Change | None = None) -> dict[str, Any]:
        """The variables that ask for a release, made now if there is none yet."""
        folder = self.folder / "releases" / version
        if not folder.exists():
            make_wheelhouse(folder, version, *self.wheels, change)
        return {"edgescribe_version": version, "edgescribe_wheelhouse": str(folder)}

    def rollout(self, version: str, change: Change | None = None, *options: str, **variables: Any) -> Run:
        """Roll a release out: to the canary, then to the two others at once."""
        serial = {"edgescribe_serial": [1, "100%"]}
        return self.site.play("rollout", *options, **{**serial, **self.release(version, change), **variables})

    def status(self, name: str) -> dict[str, Any]:
        """What `edgescribe-release status` says on a device; empty where there is none yet."""
        text = self.hosts[name].ask("/usr/local/sbin/edgescribe-release", "status")
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def in_force(self) -> list[str | None]:
        """The release of each device; None where none is, or where it does not run."""
        return [
            self.status(name).get("release") if host.property("ActiveState") == "active" else None
            for name, host in self.hosts.items()
        ]

    def processes(self) -> list[str]:
        """The main process of each device: another number if somebody touched it."""
        return [host.property("MainPID") for host in self.hosts.values()]


@pytest.fixture(scope="session")
def fleet(pulled: Callable[[str], Path]) -> Iterator[Fleet]:
    """Three bare hosts with sshd on a bridge, and a broker that keeps devices apart."""
    if reason := missing():
        pytest.skip(f"no hosts with systemd on this machine: {reason}")
    if not shutil.which("ssh"):
        pytest.skip("ssh is missing: apt install openssh-client")
    make_base(BASE)
    folder = CACHE / "fleet"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    network, hosts = Network(), {}
    broker: Mosquitto | None = None
    try:
        network.open()
        site = Site(folder, REPOSITORY / "ansible")
        for number, name in enumerate(NAMES, start=1):
            hosts[name] = _boot(folder / name, name, site.key.with_suffix(".pub"))
            network.attach(number, hosts[name].init_pid)
        broker = _broker(folder, network)
        addresses = {name: network.address(number) for number, name in enumerate(NAMES, start=1)}
        assert eventually(lambda: all(answers(address, 22) for address in addresses.values()), 60.0)
        variables = _variables(network, broker, pulled(MODEL), folder)
        site.write_inventory(
            {
                name: {"ansible_host": addresses[name], "edgescribe_mqtt_password": f"secret-of-{name}"}
                for name in NAMES
            },
            variables,
        )
        wheels = agent_wheel(REPOSITORY, folder / "agent"), dependencies(CACHE, REPOSITORY)
        yield Fleet(hosts, network, site, broker, folder, variables, wheels)
    finally:
        for host in hosts.values():
            host.halt()
        network.close()
        if broker:
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _boot(folder: Path, name: str, public_key: Path) -> SystemdHost:
    host = SystemdHost(folder, name, BASE)
    host.write("/etc/hostname", f"{name}\n")
    host.write("/root/.ssh/authorized_keys", public_key.read_text(encoding="utf-8"))
    (host.root / "root/.ssh").chmod(0o700)
    host.boot()
    return host


def _broker(folder: Path, network: Network) -> Mosquitto:
    """Passwords, and the access control list as it is shipped."""
    passwords, port = folder / "passwords", free_port()
    for name in (*NAMES, "operator"):
        secret = f"secret-of-{name}"
        create = [] if passwords.exists() else ["-c"]
        subprocess.run([program("mosquitto_passwd"), "-b", *create, str(passwords), name, secret], check=True)
    lines = [f"listener {port} {address}" for address in ("127.0.0.1", network.address(0))]
    broker = Mosquitto(
        folder,
        "allow_anonymous false",
        f"password_file {passwords}",
        f"acl_file {ACCESS}",
        *lines,
        listener_ports=(port,),
    )
    broker.start()
    return broker


def _variables(network: Network, broker: Mosquitto, model: Path, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "edgescribe_mqtt_host": network.address(0),
        "edgescribe_mqtt_port": broker.port,
        "edgescribe_mqtt_reconnect_max_s": 5.0,
        "edgescribe_models": [{"name": MODEL, "files": [{"name": model.name, "sha256": digest}]}],
        "edgescribe_models_source": str(model.parent.parent),
        "edgescribe_settle_s": 2,
        "edgescribe_controller_cache": str(folder / "cache"),
    }


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder on a disk."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        yield Path(folder)
