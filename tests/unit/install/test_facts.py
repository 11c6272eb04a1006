from pathlib import Path

import pytest

from agent.errors import InstallError
from agent.install import facts
from agent.install.facts import RECORD, Record, closed_to_others, hidden_by, look, microphones, program_problem
from tests.unit.audio.test_libasound import CARDS, PCM


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a board with a USB microphone."""
    asound, tree = tmp_path / "proc/asound", tmp_path / "proc/device-tree"
    asound.mkdir(parents=True)
    tree.mkdir()
    (asound / "cards").write_text(CARDS)
    (asound / "pcm").write_text(PCM)
    (tree / "model").write_text("NVIDIA Jetson Orin Nano\0")
    return tmp_path


def test_a_bare_machine_is_looked_at_without_a_fuss(machine: Path) -> None:
    """Board and microphones are found; what is not there is None."""
    found = look(machine)
    assert found.board == "NVIDIA Jetson Orin Nano"
    assert (found.config, found.unit, found.command) == (None, None, None)
    assert found.record == Record()
    assert found.memory_mb > 0


def test_hardware_comes_before_names_in_the_configuration(machine: Path) -> None:
    """Cards that can record, by id."""
    assert all(device.pcm.startswith("plughw:CARD=") for device in microphones(machine))
    assert microphones(machine)


def test_a_damaged_record_is_said(machine: Path) -> None:
    """It is not taken for none."""
    path = facts.below(machine, RECORD)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(InstallError, match=r"installed\.json"):
        look(machine)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/home/pi/edgescribe/bin/edgescribe", "/home"),
        ("/root/.local/share/pipx/venvs/edgescribe/bin/edgescribe", "/root"),
        ("/run/user/1000/venv/bin/edgescribe", "/run/user"),
        ("/opt/edgescribe/bin/edgescribe", None),
        ("/homestead/bin/edgescribe", None),
    ],
)
def test_what_the_sandbox_hides_is_known(path: str, folder: str | None) -> None:
    """Homes and temporary folders are not there for the service."""
    hidden = hidden_by(Path(path))
    assert (str(hidden) if hidden else None) == folder


def test_a_folder_that_others_may_not_enter_is_named(tmp_path: Path) -> None:
    """A virtual environment made under umask 077 could be read by root only."""
    program = tmp_path / "venv" / "bin" / "edgescribe"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    assert not [path for path in closed_to_others(program) if path.is_relative_to(tmp_path / "venv")]
    program.parent.chmod(0o700)
    assert next(path for path in closed_to_others(program) if path.is_relative_to(tmp_path / "venv")) == program.parent


def test_a_program_that_is_not_there_is_said() -> None:
    """Somebody ran it from a source tree."""
    assert "install edgescribe with pip" in program_problem(Path("/opt/edgescribe/bin/none"))
