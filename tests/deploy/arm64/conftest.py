import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.deploy.arm64.root import foreign_programs, inside, make_root, missing

CACHE = REPOSITORY / ".edgescribe" / "arm64"

Wheelhouse = Callable[[str], Path]


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """An arm64 Debian that can run; kept for the next time."""
    if reason := missing():
        pytest.skip(f"no arm64 programs on this machine: {reason}")
    with foreign_programs():
        make_root(CACHE / "root")
        yield CACHE / "root"


@pytest.fixture(scope="session")
def wheelhouse(root: Path) -> Wheelhouse:
    """Gives the wheelhouse for a CPU class, made as a user makes it, as a path in the root."""

    def give(cpu: str) -> Path:
        command = ["make", "-C", str(REPOSITORY), "wheelhouse", "ARCH=aarch64", f"CPU={cpu}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        name = f"aarch64-{cpu}"
        shutil.rmtree(root / "wheelhouse" / name, ignore_errors=True)
        shutil.copytree(REPOSITORY / "wheelhouse" / name, root / "wheelhouse" / name)
        return Path("/wheelhouse") / name

    return give


@pytest.fixture(scope="session")
def installed(root: Path, wheelhouse: Wheelhouse) -> Callable[[str], str]:
    """Gives the path of `edgescribe` in the root, installed offline from the wheelhouse for a CPU class."""
    done: dict[str, str] = {}

    def install(cpu: str) -> str:
        if cpu not in done:
            folder = wheelhouse(cpu)
            # Whatever pip needs of the CPU must be there on the plainest.
            steps = (
                f"python3 -m venv --clear /opt/{cpu} && cd {folder} && "
                f"/opt/{cpu}/bin/pip install --no-index --find-links . --no-compile "
                "--require-hashes -r requirements.txt"
            )
            result = inside(root, ["sh", "-c", steps], "cortex-a53", {})
            assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
            done[cpu] = f"/opt/{cpu}/bin/edgescribe"
        return done[cpu]

    return install
