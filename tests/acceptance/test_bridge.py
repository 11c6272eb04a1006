"""The bridge that we ship, as it is, between a site's broker and the one above with its own access control list."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto, program
from tests.support.peer import Peer
from tests.support.receiver import Receiver, eventually
from tests.support.shipped_broker import SHIPPED, ShippedBroker

pytestmark = pytest.mark.mosquitto
BRIDGE = (SHIPPED / "bridge.conf").read_text(encoding="utf-8")
SITE = "site-north"


@pytest.fixture
def above(tmp_path: Path) -> Iterator[ShippedBroker]:
    """The broker for all sites, which knows the site by its certificate."""
    folder = tmp_path / "above"
    folder.mkdir()
    broker = ShippedBroker(folder)
    broker.make_certificates("device", SITE)
    rules = "\n".join(line.lstrip("# ") for line in BRIDGE.splitlines() if re.match(r"#\s+(user|topic) ", line))
    assert rules.startswith(f"user {SITE}\n")
    acl = folder / "edgescribe.acl"
    acl.write_text(acl.read_text(encoding="utf-8").replace("# Devices, and", f"{rules}\n\n# Devices, and", 1))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def site(above: ShippedBroker, tmp_path: Path) -> Iterator[Mosquitto]:
    """The site's own broker, with the bridge to the one above."""
    text = BRIDGE.replace("broker.example.org:8883", f"localhost:{above.port}")
    text = text.replace("/etc/mosquitto/certs/above-ca.crt", str(above.certificates / "ca.crt"))
    text = text.replace("/etc/mosquitto/certs", str(above.certificates))
    folder = tmp_path / "site"
    folder.mkdir()
    broker = Mosquitto(folder, "allow_anonymous true", *text.splitlines())
    broker.start()
    yield broker
    broker.kill()


def operator(above: ShippedBroker) -> Peer:
    """An operator, who watches all sites and sends commands to them."""
    return Peer("operator", above.person("operator")).listen("edgescribe/v1/#")


def say(site: Mosquitto, topic: str, payload: str, *options: str) -> None:
    """Publish at the site, as a device there."""
    command = [program("mosquitto_pub"), "-p", str(site.port), "-q", "1", "-t", topic, "-m", payload, *options]
    subprocess.run(command, check=True)


def test_words_and_health_go_up_commands_come_down_and_discovery_stays(above: ShippedBroker, site: Mosquitto) -> None:
    """What a device says is heard above, what is asked above reaches the device; discovery and partials stay."""
    above_all = operator(above)
    with Receiver(site.port, "edgescribe/v1/+/cmd/+") as device:
        kitchen = "edgescribe/v1/kitchen"
        at_home = {"homeassistant/device/kitchen/config", f"{kitchen}/transcript/partial"}
        for_all = {f"{kitchen}/{kind}" for kind in ("health", "transcript", "transcript/backlog", "transcript/failed")}
        for topic in (*sorted(at_home), *sorted(for_all)):
            say(site, topic, "said")
        assert eventually(lambda: for_all <= above_all.topics())
        assert above_all.topics() & at_home == set()
        wanted = f"{kitchen}/cmd/mute"
        assert eventually(
            lambda: above_all.may_write(wanted, "ON") and wanted in [each.topic for each in device.messages]
        )
    above_all.close()


def test_what_is_said_while_the_link_is_down_arrives_later(above: ShippedBroker, site: Mosquitto) -> None:
    """The site's broker keeps what has QoS 1 until the one above is back."""
    above_all = operator(above)
    health = "edgescribe/v1/kitchen/health"
    say(site, health, "before")
    assert eventually(lambda: (health, "before") in above_all.heard)
    above_all.close()
    above.kill()
    # Retained, as health is: it does not matter whether the bridge or we are back sooner.
    say(site, health, "meanwhile", "--retain")
    above.start()
    above_all = operator(above)
    assert eventually(lambda: (health, "meanwhile") in above_all.heard, 120.0)
    above_all.close()
