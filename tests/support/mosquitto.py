"""A real mosquitto for the tests, on a free port of loopback, that can be killed and started again."""

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
START_S = 60.0
_CHANCE = random.SystemRandom()
_CA_CONFIG = """\
[ca]
default_ca = authority
[authority]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = names
[names]
commonName = supplied
"""


def program(name: str) -> str:
    """The path of a program; the test fails with the remedy if it is missing."""
    found = shutil.which(name, path=PATH)
    if not found:
        pytest.fail(f"{name} is missing: apt install mosquitto mosquitto-clients openssl")
    return found


def free_port() -> int:
    """A port of loopback that is not in use.

    It lies below the ports that the kernel gives to outgoing connections (32768 and more, ip(7)), and is drawn at
    random: tests that run at the same time must not get the same one.
    """
    while True:
        port = _CHANCE.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


class Mosquitto:
    """A broker with lines of configuration of its own. Forgets everything when it is killed.

    It listens on a free port; or on `listener_ports`, which the lines name. The first of them is `port`.
    """

    def __init__(self, folder: Path, *lines: str, listener_ports: Sequence[int] = ()) -> None:
        self._ports = listener_ports or [free_port()]
        self.port = self._ports[0]
        self._program = program("mosquitto")
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._log = folder / f"mosquitto-{self.port}.log"
        # As root it would become the user `mosquitto`, who may not look into the test's folder.
        text = ["persistence false", "user root", "log_type all", *lines]
        if not listener_ports:
            text = [f"listener {self.port} 127.0.0.1", *text]
        self._config.write_text("\n".join([*text, ""]), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._config)], stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S
        for port in self._ports:
            while not _takes_connections(port):
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    pytest.fail(f"mosquitto did not start: {self.log()}")
                time.sleep(0.02)

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class StartMosquitto(Protocol):
    """Starts a broker with further lines of configuration; without any, every client may do everything."""

    def __call__(self, *lines: str, start: bool = True) -> Mosquitto:
        """Return the broker, running unless `start` is False."""


def await_expiry(cert_file: Path) -> None:
    """Wait until a certificate is good no longer. From version 3.5 on openssl makes none that ends before it begins."""
    check = [program("openssl"), "x509", "-in", str(cert_file), "-noout", "-checkend", "0"]
    while subprocess.run(check, capture_output=True, check=False).returncode == 0:
        time.sleep(0.1)


class Authority:
    """A certificate authority of one test, by openssl(1)."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._openssl = program("openssl")
        self._folder = folder
        self.cert_file = folder / f"{name}.crt"
        self._key_file = folder / f"{name}.key"
        self._run(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN=edgescribe test {name}",
            "-keyout",
            str(self._key_file),
            "-out",
            str(self.cert_file),
        )

    def issue(
        self, name: str, alternative: str = "DNS:localhost,IP:127.0.0.1", days: int = 2, starts_in_days: int = -3
    ) -> tuple[Path, Path]:
        """Make a certificate and key for `name`; return their files.

        It is valid from `starts_in_days` until `days` from now (negative: in the past).
        """
        cert_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n", encoding="ascii")
        self._run(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(key_file),
            "-out",
            str(request),
        )
        config = self._folder / "ca.conf"
        config.write_text(_CA_CONFIG.format(folder=self._folder), encoding="utf-8")
        (self._folder / "index.txt").touch()
        start, end = (datetime.now(UTC) + timedelta(days=count) for count in (starts_in_days, days))
        self._run(
            "ca",
            "-batch",
            "-notext",
            "-config",
            str(config),
            "-cert",
            str(self.cert_file),
            "-keyfile",
            str(self._key_file),
            "-in",
            str(request),
            "-startdate",
            f"{start:%Y%m%d%H%M%SZ}",
            "-enddate",
            f"{end:%Y%m%d%H%M%SZ}",
            "-extfile",
            str(extensions),
            "-out",
            str(cert_file),
        )
        return cert_file, key_file

    def context(self) -> ssl.SSLContext:
        """For clients that trust this authority."""
        context = ssl.create_default_context(cafile=str(self.cert_file))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it is as simple as those that guides tell to make
        return context

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._openssl, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"openssl {arguments[0]}: {done.stderr}")
