import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply.errors import SupplyError
from supply.house import LOCKS, ROOT
from supply.locks import needed, read_lock
from supply.target import ARCHITECTURES, PYTHONS, Target

DIGEST = "a" * 64
LOCK = f"""\
# made by a tool
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{DIGEST} \\
    --hash=sha256:{"b" * 64}
    # via edgescribe
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{"c" * 64}
Typing_Extensions==4.16.0 \\
    --hash=sha256:{"d" * 64}
"""


def write(folder: Path, text: str) -> Path:
    """A lock file in `folder`."""
    path = folder / "lock.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lock_gives_versions_hashes_and_what_a_target_needs(tmp_path: Path) -> None:
    """Markers are judged for the target and not for the machine that reads them."""
    locked = read_lock(write(tmp_path, LOCK))
    assert [one.name for one in locked] == ["numpy", "colorama", "typing-extensions"]
    assert locked[0].requirement() == f"numpy==2.4.6 --hash=sha256:{DIGEST} --hash=sha256:{'b' * 64}"
    assert [one.name for one in needed(locked, Target("aarch64", "armv8-a", "3.11"))] == ["numpy", "typing-extensions"]
    assert [one.name for one in needed(locked, Target("aarch64", "armv8-a", "3.13"))] == ["typing-extensions"]


@pytest.mark.parametrize("text", ["numpy==2.4.6\n", f"numpy>=2 --hash=sha256:{DIGEST}\n", "-e .\n"])
def test_what_is_not_pinned_or_not_hashed_is_refused(tmp_path: Path, text: str) -> None:
    """A lock with a hole is no lock."""
    with pytest.raises(SupplyError, match="make it anew with `make lock`"):
        read_lock(write(tmp_path, text))


def test_a_lock_that_is_not_there_is_made_by_a_command_that_is_named(tmp_path: Path) -> None:
    """No traceback."""
    with pytest.raises(SupplyError, match="make lock"):
        read_lock(tmp_path / "none.txt")


@pytest.mark.parametrize("extra", sorted(LOCKS))
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_locks_satisfy_the_project(extra: str, python: str, arch: str) -> None:
    """Every dependency of the project, and of the extras, is pinned once for every target, to a version it accepts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["assist"], *extras["enhance"], *extras.get(extra, [])]
    found = needed(read_lock(LOCKS[extra]), Target(arch, "any", python))
    versions = {one.name: one.version for one in found}
    assert len(versions) == len(found)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_the_locks_agree() -> None:
    """CTranslate2 beside the agent changes nothing about the rest."""
    less, more = (
        {(one.name, one.version, one.marker) for one in read_lock(LOCKS[name])} for name in ("none", "faster-whisper")
    )
    assert less <= more
