"""A real mosquitto with the files of `docs/broker/` as they are: only ports and paths are others."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.support.mosquitto import Mosquitto, free_port, program

SHIPPED: Final = Path(__file__).parents[2] / "docs" / "broker"
PASSWORD: Final = "s3cret"


class ShippedBroker(Mosquitto):
    """Devices come with certificates to `port`, people and programs with passwords to `password_port`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password_port = free_port()
        self.certificates = folder / "certs"
        self.make_certificates("ca")
        self.make_certificates("broker", "localhost")
        self._copy("edgescribe.acl")
        self._passwords("homeassistant", "operator", "archive", "pi-3")
        device_port = free_port()
        ports = {"8883": device_port, "8884": self.password_port}
        text = (SHIPPED / "mosquitto.conf").read_text(encoding="utf-8").replace("/etc/mosquitto", str(folder))
        text = re.sub(r"(?m)^listener (\d+)$", lambda found: f"listener {ports[found[1]]} 127.0.0.1", text)
        super().__init__(folder, *text.splitlines(), listener_ports=(device_port, self.password_port))

    def make_certificates(self, *arguments: str) -> None:
        """Run the shipped script on the folder of certificates."""
        script = [str(SHIPPED / "make-certificates"), str(self.certificates), *arguments]
        subprocess.run(script, check=True, capture_output=True)

    def device(self, device_id: str) -> dict[str, Any]:
        """The settings `mqtt.*` of a device that has a certificate from the script."""
        if not (self.certificates / f"{device_id}.crt").exists():
            self.make_certificates("device", device_id)
        tls = {
            "ca_file": self.certificates / "ca.crt",
            "cert_file": self.certificates / f"{device_id}.crt",
            "key_file": self.certificates / f"{device_id}.key",
        }
        return {"host": "localhost", "port": self.port, "tls": tls}

    def person(self, user: str) -> dict[str, Any]:
        """The same for a person or a program with a password."""
        address = {"host": "localhost", "port": self.password_port}
        return {**address, "username": user, "password": PASSWORD, "tls": {"ca_file": self.certificates / "ca.crt"}}

    def _copy(self, name: str) -> None:
        rules = self.folder / name
        rules.write_text((SHIPPED / name).read_text(encoding="utf-8"), encoding="utf-8")
        rules.chmod(0o600)

    def _passwords(self, *users: str) -> None:
        passwords = self.folder / "edgescribe.passwords"
        passwords.touch(mode=0o600)
        for user in users:
            subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), user, PASSWORD], check=True)
