"""What an operator's rollback does on the device: `revert` stages what was before, and it is tried like anything."""

import os
import shutil
from typing import Any

import pytest

from tests.unit.fleet.rig import AUTHORITY, CERTIFICATE, CONFIG, DROP_IN, KEY, PASSWORD, Rig, answer

Captured = pytest.CaptureFixture[str]


def tried(rig: Rig, capsys: Captured, *options: str) -> dict[str, Any]:
    """Stage what was before, and put it on trial; what `revert` has said."""
    assert rig.run("revert", *options) == 0
    staged = answer(capsys)
    if staged["back_to"]:
        assert rig.run("activate") == 0
        assert answer(capsys)["pending"]
    return staged


def back(rig: Rig, capsys: Captured, *options: str) -> None:
    """The same, and it works."""
    staged = tried(rig, capsys, *options)
    if staged["back_to"]:
        assert rig.run("confirm", "--back-to", staged["back_to"]) == 0


def confirmed(rig: Rig, capsys: Captured) -> list[str]:
    """Releases of the deployments that are kept, oldest first."""
    capsys.readouterr()
    assert rig.run("status") == 0
    found: list[str] = answer(capsys)["confirmed"]
    return found


def test_going_back_one_deployment_keeps_the_secrets(rig: Rig, capsys: Captured) -> None:
    """They may have been changed because somebody knows them: the old ones are not even kept."""
    rig.good("1", {CONFIG: "one"}, secret="old")
    rig.good("2", {CONFIG: "two", DROP_IN: "x"}, secret="new")
    history = rig.root / "var/lib/edgescribe-release/history"
    assert [file.read_text() for file in history.rglob("mqtt-password")] == ["new"]
    back(rig, capsys)
    assert (rig.release, rig.text(CONFIG), rig.text(DROP_IN)) == ("1", "one", None)
    assert rig.text(PASSWORD) == "new"
    assert rig.run("revert") == 1
    assert "no earlier deployment" in capsys.readouterr().err
    assert (rig.release, rig.text(PASSWORD)) == ("1", "new")


def test_a_certificate_stays_with_its_key(rig: Rig, capsys: Captured) -> None:
    """A key of today and a certificate of yesterday are no pair; nor does an old authority know a new broker."""
    rig.good("1", {CONFIG: "one", AUTHORITY: "old", CERTIFICATE: "old", KEY: "old"})
    rig.good("2", {CONFIG: "two", AUTHORITY: "new", CERTIFICATE: "new", KEY: "new"})
    back(rig, capsys)
    assert rig.text(CONFIG) == "one"
    assert [rig.text(name) for name in (AUTHORITY, CERTIFICATE, KEY)] == ["new"] * 3


def test_an_authority_that_today_has_no_use_for_comes_back(rig: Rig, capsys: Captured) -> None:
    """The earlier settings name it; nothing of today stands in its place."""
    rig.good("1", {CONFIG: "one", AUTHORITY: "old"})
    rig.good("2", {CONFIG: "two"})
    back(rig, capsys)
    assert (rig.text(CONFIG), rig.text(AUTHORITY)) == ("one", "old")


def test_going_back_is_a_trial_and_what_does_not_work_any_more_is_taken_back(rig: Rig, capsys: Captured) -> None:
    """The clock runs, and the deployment that had worked is still there, with its secrets."""
    rig.good("1", {CONFIG: "one"}, secret="old")
    rig.good("2", {CONFIG: "two", DROP_IN: "x"}, secret="new")
    rig.asked.clear()
    tried(rig, capsys)
    assert (rig.release, rig.text(DROP_IN)) == ("1", None)
    assert rig.asked[:2] == ["enable edgescribe-rollback.timer", "restart edgescribe-rollback.timer"]
    assert rig.run("rollback", "--reason", "not confirmed in time") == 0
    assert (rig.release, rig.text(CONFIG), rig.text(DROP_IN)) == ("2", "two", "x")
    assert rig.text(PASSWORD) == "new"
    assert confirmed(rig, capsys) == ["1", "2"]


def test_a_power_cut_while_going_back_can_be_repaired(
    rig: Rig, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-way it counts as unconfirmed: as the device comes up it has what it had, and can be told once more."""
    rig.good("1", {CONFIG: "one"})
    rig.good("2", {CONFIG: "two"})
    assert rig.run("revert") == 0
    with monkeypatch.context() as patched:
        installed = "start --no-block edgescribe.service"
        patched.setattr(rig, "systemctl", lambda *words: _cut() if " ".join(words) == installed else 0)
        with pytest.raises(KeyboardInterrupt):
            rig.run("activate")
    assert rig.release == "1"
    assert rig.run("rollback") == 0  # edgescribe-rollback-at-boot.service
    assert (rig.release, rig.text(CONFIG)) == ("2", "two")
    back(rig, capsys, "--from", "2")
    assert (rig.release, confirmed(rig, capsys)) == ("1", ["1"])


def _cut() -> int:
    raise KeyboardInterrupt


def test_who_went_back_from_a_deployment_does_not_return_to_it(rig: Rig, capsys: Captured) -> None:
    """Going back twice goes back two: what was left is no earlier deployment."""
    for number in ("1", "2", "3"):
        rig.good(number, {CONFIG: number})
    back(rig, capsys)
    assert (rig.release, confirmed(rig, capsys)) == ("2", ["1", "2"])
    back(rig, capsys)
    assert (rig.release, confirmed(rig, capsys)) == ("1", ["1"])


def test_going_back_from_a_release_leaves_alone_who_does_not_have_it(rig: Rig, capsys: Captured) -> None:
    """A rollout that stopped at the canary: going back from what it brought must not take the others one too far."""
    rig.good("1", {CONFIG: "one"})
    rig.good("2", {CONFIG: "two"})
    back(rig, capsys, "--from", "3")
    assert rig.release == "2"
    back(rig, capsys, "--from", "2")
    back(rig, capsys, "--from", "2")
    assert rig.release == "1"


def test_going_back_from_a_release_goes_past_all_its_deployments(rig: Rig, capsys: Captured) -> None:
    """Secrets were rotated and settings changed since it came: the deployment before is of the same bad release."""
    rig.good("1", {CONFIG: "one"}, secret="first")
    rig.good("2", {CONFIG: "two"}, secret="first")
    rig.good("2", {CONFIG: "two"}, secret="second")
    rig.good("2", {CONFIG: "two and a half"}, secret="second")
    back(rig, capsys, "--from", "2")
    assert (rig.release, rig.text(CONFIG), rig.text(PASSWORD)) == ("1", "one", "second")
    assert confirmed(rig, capsys) == ["1"]


def test_a_rotation_of_secrets_is_nothing_to_go_back_from(rig: Rig, capsys: Captured) -> None:
    """Since secrets stay, the deployment before it is the same as the one in force."""
    rig.good("1", {CONFIG: "one"}, secret="first")
    rig.good("2", {CONFIG: "two"}, secret="first")
    rig.good("2", {CONFIG: "two"}, secret="second")
    back(rig, capsys)
    assert (rig.release, rig.text(PASSWORD)) == ("1", "second")


def test_going_back_from_what_is_still_on_trial(rig: Rig, capsys: Captured) -> None:
    """A play that was cut off has left it; the operator does not have to wait for its clock."""
    rig.good("1", {CONFIG: "one"}, secret="old")
    rig.stage("2", {CONFIG: "two"}, secret="new")
    assert rig.run("activate") == 0
    back(rig, capsys, "--from", "2")
    assert (rig.release, rig.text(CONFIG), rig.text(PASSWORD)) == ("1", "one", "old")
    assert confirmed(rig, capsys) == ["1"]


def test_many_rotations_leave_the_releases_before_on_the_device(rig: Rig, capsys: Captured) -> None:
    """Three releases stay, however often secrets and settings were changed since."""
    rig.good("1", {CONFIG: "one"}, secret="0")
    rig.good("2", {CONFIG: "two"}, secret="0")
    for number in range(1, 15):
        rig.good("3", {CONFIG: "three"}, secret=str(number))
    assert rig.run("prune") == 0
    assert confirmed(rig, capsys) == ["1", "2", *["3"] * 10]
    assert sorted(path.name for path in (rig.root / "opt/edgescribe/releases").iterdir()) == ["1", "2", "3"]
    back(rig, capsys, "--from", "3")
    assert (rig.release, rig.text(PASSWORD)) == ("2", "14")


def test_a_power_cut_leaves_no_half_of_a_deployment_that_is_dropped(
    rig: Rig, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept can be gone back to: nothing in it was deleted already."""
    for number in ("1", "2", "3"):
        rig.good(number, {CONFIG: number})
    staged = tried(rig, capsys)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", lambda *_, **__: _cut())  # shutil.rmtree has emptied a folder
        with pytest.raises(KeyboardInterrupt):
            rig.run("confirm", "--back-to", staged["back_to"])
    history = rig.root / "var/lib/edgescribe-release/history"
    assert all((tree / CONFIG).exists() for tree in history.iterdir())
    shutil.rmtree(rig.next)
    assert rig.run("reset") == 0
    assert (rig.next / CONFIG).read_text() == "2"
