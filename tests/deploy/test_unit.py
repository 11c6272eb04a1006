import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.asr.engine_process import LOAD_S
from agent.asr.own_time import STARVED_WEIGHT

UNIT = Path(__file__).parents[2] / "systemd" / "edgescribe.service"
DROP_INS = sorted((UNIT.parent / "drop-ins").glob("*.conf"))
EXPOSURE = 1.6

needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is missing: apt install systemd"
)


def analyse(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat", "LC_ALL": "C.UTF-8"}
    return subprocess.run(["systemd-analyze", *arguments], env=environment, capture_output=True, text=True, check=False)


def assignments(text: str) -> dict[str, list[str]]:
    """What the unit assigns, in order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@needs_systemd_analyze
def test_the_sandbox_is_tight() -> None:
    """`systemd-analyze security` rates the unit at 1.6 or better, of 10."""
    result = analyse("security", "--offline=yes", f"--threshold={EXPOSURE * 10:.0f}", str(UNIT))
    rating = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert rating, result.stdout + result.stderr
    assert float(rating[1]) <= EXPOSURE, result.stdout
    assert result.returncode == 0


@needs_systemd_analyze
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing at all; it would exit with 0 on unknown keys."""
    copy = tmp_path / UNIT.name
    # The program is not installed where the tests run; any other stands in for it.
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    result = analyse("verify", "--man=no", str(copy))
    assert (result.stdout, result.stderr) == ("", "")


@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_a_drop_in_is_understood_and_loosens_little(drop_in: Path, tmp_path: Path) -> None:
    """`verify` has nothing to say about the unit with it, and the exposure stays below 2."""
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    shutil.copy(drop_in, folder)
    result = analyse("verify", "--man=no", str(copy))
    assert (result.stdout, result.stderr) == ("", "")
    # For the rating `security` does not look at drop-ins of a unit that is not installed.
    copy.write_text(f"{copy.read_text()}\n{drop_in.read_text()}")
    security = analyse("security", "--offline=yes", "--threshold=20", str(copy))
    assert security.returncode == 0, security.stdout


@needs_systemd_analyze
def test_verify_would_notice_a_misspelt_key(tmp_path: Path) -> None:
    """The test above can fail."""
    copy = tmp_path / UNIT.name
    copy.write_text(f"[Service]\nExecStart={sys.executable}\nProtectHom=yes\n")
    assert "ProtectHom" in analyse("verify", "--man=no", str(copy)).stderr


def test_a_wrong_configuration_is_not_tried_again_and_a_crash_always_is() -> None:
    """Exit 78 stays down; everything else comes back, without a limit on how often."""
    unit = assignments(UNIT.read_text())
    assert unit["RestartPreventExitStatus"] == ["78"]
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]


def test_an_engine_that_is_short_of_processor_time_may_load() -> None:
    """A start may take longer than the agent waits for an engine that may have hung."""
    limit = assignments(UNIT.read_text())["TimeoutStartSec"]
    assert limit == [limit[0].removesuffix("min") + "min"]
    assert 60 * int(limit[0].removesuffix("min")) > LOAD_S / STARVED_WEIGHT


def test_listening_does_not_wait_for_network_or_clock() -> None:
    """Capture starts offline: neither network-online.target nor time-sync.target holds it up."""
    assert assignments(UNIT.read_text())["After"] == ["network.target sound.target"]


def test_the_sound_card_stays_within_reach() -> None:
    """PrivateDevices= would hide /dev/snd; the device policy lets sound through and nothing else of substance."""
    unit = assignments(UNIT.read_text())
    assert "PrivateDevices" not in unit
    assert unit["DeviceAllow"] == ["char-alsa rw"]
    assert unit["DevicePolicy"] == ["closed"]
