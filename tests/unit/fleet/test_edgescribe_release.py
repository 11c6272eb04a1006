import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet.rig import CONFIG, DROP_IN, PASSWORD, PROGRAM, Rig, answer


def test_a_deployment_comes_into_force_with_the_clock_started_first(rig: Rig) -> None:
    """Files and link are as staged; the timer runs before the service is touched, and goes on after a power cut."""
    rig.stage("1", {CONFIG: "one"})
    assert rig.run("activate") == 0
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")
    assert rig.asked[:2] == ["enable edgescribe-rollback.timer", "restart edgescribe-rollback.timer"]
    assert "start --no-block edgescribe.service" in rig.asked


def test_what_is_in_force_and_confirmed_is_not_touched(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `activate` of the same changes nothing and asks systemd for nothing."""
    rig.good("1", {CONFIG: "one"})
    rig.asked.clear()
    assert rig.run("activate") == 0
    assert answer(capsys) == {"changed": False, "pending": False, "release": "1"}
    assert rig.asked == []


def test_confirming_stops_the_clock(rig: Rig) -> None:
    """Afterwards, the timer takes nothing back."""
    rig.good("1", {CONFIG: "one"})
    assert rig.asked[-1] == "disable --now edgescribe-rollback.timer"
    assert rig.run("rollback") == 0
    assert rig.release == "1"


def test_what_is_not_confirmed_is_taken_back_whole(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Link, settings and secret are the earlier ones; a drop-in that came with it is gone; the reason is kept."""
    rig.good("1", {CONFIG: "one"}, secret="old")
    rig.stage("2", {CONFIG: "two", DROP_IN: "x"}, secret="new")
    assert rig.run("activate") == 0
    assert (rig.text(DROP_IN), rig.text(PASSWORD)) == ("x", "new")
    assert rig.run("rollback", "--reason", "deaf") == 0
    assert (rig.release, rig.text(CONFIG), rig.text(DROP_IN)) == ("1", "one", None)
    assert rig.text(PASSWORD) == "old"
    assert rig.asked[-2:] == ["start --no-block edgescribe.service", "disable --now edgescribe-rollback.timer"]
    rig.run("status")
    status = answer(capsys)
    assert status["last_failure"] == {"release": "2", "reason": "deaf"}
    assert not status["pending"]


def test_a_first_release_that_is_taken_back_leaves_nothing_running(rig: Rig) -> None:
    """There is nothing to go back to: the service is stopped, its files are gone."""
    rig.stage("1", {CONFIG: "one"}, secret="s")
    assert rig.run("activate") == 0
    assert rig.run("rollback") == 0
    assert (rig.release, rig.text(CONFIG), rig.text(PASSWORD)) == (None, None, None)
    assert "disable --now edgescribe.service" in rig.asked
    assert rig.asked[-1] == "disable --now edgescribe-rollback.timer"


def test_taking_back_can_be_cut_off_and_repeated(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until everything is back, it counts as unconfirmed: after a power cut the timer does it again."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    assert rig.run("activate") == 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "sync", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rig.run("rollback")
    assert rig.run("rollback") == 0
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")


def test_what_came_too_late_is_not_confirmed(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """After the timer has taken a release back, `confirm` fails and says so."""
    rig.stage("1", {CONFIG: "one"})
    assert rig.run("activate") == 0
    assert rig.run("rollback") == 0
    assert rig.run("confirm") == 1
    assert "taken back" in capsys.readouterr().err


def test_a_play_judges_what_it_put_on_trial_itself(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Another play has replaced it: neither the first one's yes nor its no counts for what it has not seen."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    assert rig.run("activate") == 0
    first = answer(capsys)["trial"]
    rig.stage("3", {CONFIG: "three"})
    assert rig.run("activate") == 0
    second = answer(capsys)["trial"]
    assert rig.run("confirm", "--trial", first) == 1
    rig.asked.clear()
    for trial in (first, "none"):
        assert rig.run("rollback", "--trial", trial) == 0
    assert (rig.release, rig.asked) == ("3", [])  # its clock still runs
    assert rig.run("confirm", "--trial", second) == 0
    assert rig.release == "3"


def test_files_of_others_are_left_alone(rig: Rig) -> None:
    """An operator's own drop-in and `conf.d` survive whatever is rolled out and taken back."""
    own = "etc/systemd/system/edgescribe.service.d/own.conf"
    (rig.root / own).parent.mkdir(parents=True)
    (rig.root / own).write_text("mine")
    rig.stage("1", {CONFIG: "one", DROP_IN: "x"})
    assert rig.run("activate") == 0
    assert rig.run("rollback") == 0
    assert (rig.text(own), rig.text(DROP_IN)) == ("mine", None)


def test_damage_on_the_device_is_repaired(rig: Rig) -> None:
    """Settings that somebody changed by hand come back with the next rollout, and on trial like everything."""
    rig.good("1", {CONFIG: "one"})
    (rig.root / CONFIG).write_text("tampered")
    rig.stage("1", {CONFIG: "one"})
    assert rig.run("activate") == 0
    assert rig.text(CONFIG) == "one"
    assert "restart edgescribe-rollback.timer" in rig.asked


def test_a_release_that_is_not_installed_is_not_put_into_force(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is changed, and the message is one line."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    (rig.root / "opt/edgescribe/releases/2/bin/edgescribe").unlink()
    assert rig.run("activate") == 1
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")
    error = capsys.readouterr().err
    assert "not installed" in error
    assert error.count("\n") == 1


def test_resetting_stages_what_is_in_force(rig: Rig) -> None:
    """After a failure the stage holds what failed; `reset` makes it harmless."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    assert rig.run("reset") == 0
    assert (rig.next / "opt/edgescribe/current").readlink().name == "1"
    assert (rig.next / CONFIG).read_text() == "one"


def test_three_releases_and_their_models_are_kept(rig: Rig) -> None:
    """What no deployment needs is deleted: older releases, models without a name, what failed."""
    for number in range(1, 6):
        model = rig.root / "var/lib/edgescribe-models/sha256" / f"digest-{number}"
        model.mkdir(parents=True)
        rig.stage(str(number), {CONFIG: str(number)})
        name = rig.next / "var/lib/edgescribe-models/by-name/tiny"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(f"/var/lib/edgescribe-models/sha256/digest-{number}")
        assert rig.run("activate") == 0
        assert rig.run("confirm") == 0
    (rig.root / "opt/edgescribe/releases/failed").mkdir()
    assert rig.run("prune") == 0
    assert sorted(path.name for path in (rig.root / "opt/edgescribe/releases").iterdir()) == ["3", "4", "5"]
    models = sorted(path.name for path in (rig.root / "var/lib/edgescribe-models/sha256").iterdir())
    assert models == ["digest-3", "digest-4", "digest-5"]


def test_a_disk_that_is_full_is_helped_by_keeping_less(rig: Rig) -> None:
    """`prune` itself forgets what is beyond `--keep`: it makes room before there is anything to confirm."""
    for number in range(1, 4):
        rig.good(str(number), {CONFIG: str(number)})
    assert rig.run("--keep", "1", "prune") == 0
    assert [path.name for path in (rig.root / "opt/edgescribe/releases").iterdir()] == ["3"]


def test_what_a_play_left_half_way_is_deleted_and_what_is_not_ours_does_no_harm(rig: Rig) -> None:
    """Wheels and models that never arrived; a folder among the models' names, a file among the releases."""
    rig.good("1", {CONFIG: "one"})
    left = [rig.root / "opt/edgescribe/.wheels-2", rig.root / "var/lib/edgescribe-models/.arriving-x"]
    own = rig.root / "var/lib/edgescribe-models/by-name/own"
    for folder in (*left, own):
        folder.mkdir(parents=True)
    (rig.root / "opt/edgescribe/releases/README").touch()
    assert rig.run("prune") == 0
    assert not any(folder.exists() for folder in left)
    assert own.is_dir()


def test_nothing_goes_on_trial_without_a_clock(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """The timer does not start: what is in force stays, and that is said in one line."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    rig.fails = {"restart edgescribe-rollback.timer"}
    assert rig.run("activate") == 1
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")
    assert capsys.readouterr().err.count("\n") == 1
    assert rig.run("rollback") == 0  # as the play does
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")


def test_a_secret_is_at_no_time_open_to_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even before it has its place: what is copied is closed from its first byte on."""
    modes = []

    def copy(source: Any, target: Any) -> None:
        modes.append(os.fstat(target.fileno()).st_mode & 0o777)
        target.write(source.read())

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    rig.stage("1", {CONFIG: "one"}, secret="s")
    assert rig.run("activate") == 0
    assert set(modes) == {0o600}
    assert (rig.root / CONFIG).stat().st_mode & 0o777 == 0o644
    assert (rig.root / PASSWORD).stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_one_line_and_what_waits_can_still_be_taken_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taking back fails while there is no room, keeps the clock armed, and works when there is."""
    rig.good("1", {CONFIG: "one"})
    rig.stage("2", {CONFIG: "two"})
    assert rig.run("activate") == 0
    rig.asked.clear()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        assert rig.run("rollback") == 1
    assert capsys.readouterr().err == "edgescribe-release: [Errno 28] No space left on device\n"
    assert rig.asked == []
    assert rig.run("rollback") == 0
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")


def test_the_loss_of_the_terminal_leaves_no_half_of_it(rig: Rig, tmp_path: Path) -> None:
    """SSH goes away, and its terminal hangs up, while systemd is asked: everything comes into force all the same."""
    rig.stage("1", {CONFIG: "one"})
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\nkill -HUP $PPID\n")
    (programs / "systemctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [sys.executable, str(PROGRAM), "--root", str(rig.root), "activate"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    assert (rig.release, rig.text(CONFIG)) == ("1", "one")
