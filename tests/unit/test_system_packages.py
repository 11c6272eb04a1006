"""`scripts/system-packages`, with programs in place of dpkg and apt that know a small Debian."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

INSTALLED = """\
installed libc6, libc6-amd64 (= 2.41)
installed mawk, awk
installed libasound2t64, libasound2 (= 1.2.14)
config-files mosquitto
"""
POLICY = """\
case $2 in
libasound2 | libglib2.0-0) echo "$2:" && echo "  Candidate: (none)" ;;
nothing) ;;
*) echo "$2:" && echo "  Candidate: 1.0" ;;
esac
"""
PROVIDERS = """\
echo "Package: $2"
echo "Dependencies:"
echo "Reverse Provides: "
case $2 in
libasound2)
    echo "liboss4-salsa-asound2 4.2 (= )"
    echo "libasound2t64 1.2.14 (= 1.2.14)"
    ;;
esac
"""


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A folder with the programs; `apt-get` writes down what it is told, and installs nothing."""
    programs = {
        "dpkg-query": f"cat <<'end'\n{INSTALLED}end\n",
        "apt-cache": f'if [ "$1" = policy ]; then\n{POLICY}else\n{PROVIDERS}fi\n',
        "apt-get": f'echo "$*" >>{tmp_path}/told\n',
        "id": "echo 0\n",
    }
    for name, body in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
        program.chmod(0o755)
    return tmp_path


def told(debian: Path, *packages: str) -> list[str]:
    """Which packages apt-get is asked to install so that `packages` are there."""
    environment = {**os.environ, "PATH": f"{debian}:{os.environ['PATH']}"}
    subprocess.run([REPOSITORY / "scripts" / "system-packages", *packages], env=environment, check=True)
    told = debian / "told"
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return [line.rpartition(" ")[2] for line in lines if line.startswith("install")]


def test_what_another_package_provides_is_there(debian: Path) -> None:
    """Debian 13 has libasound2t64 for libasound2; nothing is asked of apt."""
    assert told(debian, "libc6", "libasound2", "awk") == []


def test_what_was_removed_is_not_there(debian: Path) -> None:
    """Its settings may still be."""
    assert told(debian, "libc6", "mosquitto") == ["mosquitto"]


def test_a_name_that_only_others_provide_is_installed_by_theirs(debian: Path) -> None:
    """The one that is named after it, if there is one, and not what happens to come first."""
    dpkg = debian / "dpkg-query"
    dpkg.write_text(dpkg.read_text(encoding="utf-8").replace("libasound2t64, libasound2", "other"), encoding="utf-8")
    assert told(debian, "procps", "libasound2") == ["procps", "libasound2t64"]


def test_a_name_that_apt_has_never_heard_of_is_left_to_apt(debian: Path) -> None:
    """Which says so in its own words."""
    assert told(debian, "nothing", "libglib2.0-0") == ["nothing", "libglib2.0-0"]
