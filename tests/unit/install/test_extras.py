import json
import re
from pathlib import Path

import pytest

from agent.install import extras
from agent.install.extras import Installation, installation
from tests.conftest import REPOSITORY
from tests.unprivileged import closed


def checkout(folder: Path) -> Path:
    """A folder that pip can install from."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    return folder


def environment(folder: Path) -> Path:
    """A virtual environment, as far as anybody looks."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "pip").touch()
    return folder


def from_folder(folder: Path, **more: bool) -> str:
    """What pip writes down of a folder that it has installed from."""
    return json.dumps({"url": folder.as_uri(), "dir_info": more})


def test_an_extra_comes_from_where_the_program_came_from(tmp_path: Path) -> None:
    """The environment's own pip, and the checkout, whatever the folder is called and wherever one stands."""
    sources, there = checkout(tmp_path / "my sources"), environment(tmp_path / "venv")
    found = installation(there, from_folder(sources), tmp_path)
    assert found.with_extra("assist") == f"{there}/bin/pip install '{sources}[assist]'"
    assert found.again("pywhispercpp") == f"{there}/bin/pip install --force-reinstall pywhispercpp"


def test_what_runs_from_its_checkout_goes_on_doing_so(tmp_path: Path) -> None:
    """As with `make demo`: an ordinary installation would freeze what is being edited."""
    sources, there = checkout(tmp_path / "sources"), environment(tmp_path / "venv")
    found = installation(there, from_folder(sources, editable=True), tmp_path)
    assert found.with_extra("demo") == f"{there}/bin/pip install --editable '{sources}[demo]'"


def test_a_program_that_was_never_installed_knows_its_checkout(tmp_path: Path) -> None:
    """`python -m agent` in a checkout."""
    sources = checkout(tmp_path / "sources")
    assert installation(environment(tmp_path / "venv"), None, sources).folder == sources


def test_a_checkout_that_is_gone_is_not_named(tmp_path: Path) -> None:
    """Any other one does."""
    there = environment(tmp_path / "venv")
    found = installation(there, from_folder(tmp_path / "gone"), tmp_path)
    assert found.with_extra("assist") == f"in a checkout, {there}/bin/pip install '.[assist]'"


def test_a_wheelhouse_has_what_it_was_made_with(tmp_path: Path) -> None:
    """Small extras are in each one, CTranslate2 in some, the rest in none; nothing comes from an index."""
    there = environment(tmp_path / "venv")
    found = installation(there, None, tmp_path)
    assert found.with_extra("enhance").endswith(
        f"{there}/bin/pip install --no-index --find-links . 'edgescribe[enhance]'"
    )
    assert "EXTRA=faster-whisper" in found.with_extra("faster-whisper")
    assert found.with_extra("bench") == f"in a checkout, {there}/bin/pip install '.[bench]'"
    wheel = json.dumps({"url": "file:///wheels/edgescribe-1-py3-none-any.whl", "archive_info": {}})
    assert installation(there, wheel, tmp_path) == found


def test_an_environment_of_pipx_has_pip_as_a_module(tmp_path: Path) -> None:
    """There is no `bin/pip` in it."""
    (tmp_path / "bin").mkdir()
    assert installation(tmp_path, None, tmp_path).pip == f"{tmp_path}/bin/python -m pip"


def test_who_may_not_change_the_environment_needs_sudo(tmp_path: Path) -> None:
    """And a checkout in a home that the service does not see is taken to be there."""
    sources, there = checkout(tmp_path / "home" / "sources"), environment(tmp_path / "venv")
    there.chmod(0o555)
    with closed(tmp_path / "home"):
        found = installation(there, from_folder(sources), tmp_path)
    assert found == Installation(f"sudo {there}/bin/pip", sources)


def test_here_is_the_environment_that_runs_this() -> None:
    """The tests run from a checkout."""
    assert extras.missing("bench").endswith("[bench]'")
    assert "pip install" in extras.missing("bench")


@pytest.mark.parametrize("place", ["agent", "docs", "README.md"])
def test_nobody_is_sent_to_an_index_for_this_package(place: str) -> None:
    """The name is nobody's there: no message and no document tells anybody to type it."""
    root = REPOSITORY / place
    files = [root] if root.is_file() else [path for path in root.rglob("*") if path.suffix in {".py", ".md", ".toml"}]
    assert files
    wrong = re.compile(r"pip install '?edgescribe\b")
    assert [str(path) for path in files if wrong.search(path.read_text(encoding="utf-8"))] == []
