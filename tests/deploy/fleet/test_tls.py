"""A rollout to a device whose broker wants certificates of both sides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.fleet.conftest import ACCESS, NAMES, Fleet
from tests.support.mosquitto import Authority, Mosquitto, free_port

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(1800)]

NAME = NAMES[0]


@pytest.fixture
def guarded(fleet: Fleet, scratch: Path) -> Iterator[dict[str, Any]]:
    """The variables for a broker that knows devices by their certificates alone."""
    address, port, authority = fleet.network.address(0), free_port(), Authority(scratch)
    cert_file, key_file = authority.issue("broker", f"IP:{address}")
    tls = [f"cafile {authority.cert_file}", f"certfile {cert_file}", f"keyfile {key_file}"]
    tls += ["require_certificate true", "use_identity_as_username true"]
    listeners = [f"listener {port} 127.0.0.1", f"listener {port} {address}", *tls]
    broker = Mosquitto(scratch, "allow_anonymous false", f"acl_file {ACCESS}", *listeners, listener_ports=(port,))
    own_cert, own_key = authority.issue(NAME, f"DNS:{NAME}")
    broker.start()
    yield {
        "edgescribe_mqtt_port": port,
        "edgescribe_mqtt_tls_enabled": True,
        "edgescribe_mqtt_tls_ca": authority.cert_file.read_text(encoding="ascii"),
        "edgescribe_mqtt_tls_cert": own_cert.read_text(encoding="ascii"),
        "edgescribe_mqtt_tls_key": own_key.read_text(encoding="ascii"),
    }
    broker.kill()


def test_certificates_arrive_and_the_device_proves_itself_with_them(fleet: Fleet, guarded: dict[str, Any]) -> None:
    """The gate goes through the encrypted connection; the key is a file for root, and in no output."""
    run = fleet.rollout("1.0.0", None, "--limit", NAME, "--diff", **guarded)
    assert run.status == 0
    host = fleet.hosts[NAME]
    assert host.property("ActiveState") == "active"
    assert host.do("stat", "--format=%a %U", "/etc/edgescribe/device.key").strip() == "600 root"
    secret = guarded["edgescribe_mqtt_tls_key"].splitlines()[1]
    assert secret not in run.output
    assert secret not in host.journal()
    back = fleet.rollout("1.0.0", None, "--limit", NAME)
    assert back.status == 0
    assert not (host.root / "etc/edgescribe/device.key").exists()
