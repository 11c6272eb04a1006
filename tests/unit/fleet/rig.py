"""A device for `edgescribe-release`: a folder, and a systemctl that does nothing."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests.conftest import REPOSITORY

PROGRAM: Final = REPOSITORY / "ansible" / "roles" / "agent" / "files" / "edgescribe_release.py"


def load() -> ModuleType:
    """The program, which lies in no package."""
    spec = importlib.util.spec_from_file_location("edgescribe_release", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


keeper = load()

CONFIG: Final = "etc/edgescribe/config.toml"
DROP_IN: Final = "etc/systemd/system/edgescribe.service.d/low-memory.conf"
PASSWORD: Final = "etc/edgescribe/mqtt-password"
KEY: Final = "etc/edgescribe/device.key"
CERTIFICATE: Final = "etc/edgescribe/device.crt"
AUTHORITY: Final = "etc/edgescribe/ca.crt"
SECRETS: Final = (PASSWORD, KEY)


class Rig:
    """A device's files in a folder, and a systemctl that only writes down what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.fails: set[str] = set()
        self.next = root / "var/lib/edgescribe-release/next"

    def systemctl(self, *arguments: str) -> int:
        """Does nothing, with success unless it is among `fails`."""
        self.asked.append(" ".join(arguments))
        return int(" ".join(arguments) in self.fails)

    def stage(self, release: str, files: dict[str, str], secret: str = "") -> None:
        """Stage a deployment, as the role does."""
        program = self.root / "opt/edgescribe/releases" / release / "bin/edgescribe"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        for path in [*self.next.rglob("*")]:
            if path.is_symlink() or path.is_file():
                path.unlink()
        for name, text in {**files, **({PASSWORD: secret} if secret else {})}.items():
            file = self.next / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod(0o600 if name in SECRETS else 0o644)
        link = self.next / "opt/edgescribe/current"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"releases/{release}")

    def run(self, *arguments: str) -> int:
        """Call the program."""
        status: int = keeper.main(["--root", str(self.root), *arguments], system=self.systemctl)
        return status

    def good(self, release: str, files: dict[str, str], secret: str = "") -> None:
        """Roll out and confirm."""
        self.stage(release, files, secret)
        assert self.run("activate") == 0
        assert self.run("confirm") == 0

    def text(self, name: str) -> str | None:
        """A file of the device; None if there is none."""
        file = self.root / name
        return file.read_text(encoding="utf-8") if file.exists() else None

    @property
    def release(self) -> str | None:
        """What `current` points at."""
        link = self.root / "opt/edgescribe/current"
        return link.readlink().name if link.is_symlink() else None


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last line that was printed."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found
