"""The collection on three devices with a real systemd, by SSH: what is good arrives, what is bad stops at the first."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.fleet.conftest import MODEL, NAMES, Fleet
from tests.deploy.fleet.releases import BABBLES, CRASHES, HANGS, Change
from tests.deploy.fleet.site import Run
from tests.deploy.systemd_host.host import SystemdHost
from tests.support.receiver import eventually

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(1800)]

LIMIT_S = 240.0
"""Generous: machines that run tests are busy."""


def noted(what: str, seconds: float) -> None:
    """Write down how long something took, for `pytest -rP`."""
    print(f"{what}: {seconds:.0f} s")  # noqa: T201 - shown by -rP


@pytest.fixture(scope="module")
def deployed(fleet: Fleet) -> Fleet:
    """Every device runs 1.0.0, from bare, and proved it."""
    checked = fleet.rollout("1.0.0", None, "--check")
    assert (checked.status, fleet.in_force()) == (0, [None] * 3)
    run = fleet.rollout("1.0.0", edgescribe_serial=[1, "5%", "25%", "100%"])  # as by default
    assert run.status == 0
    noted("first rollout, three bare devices", run.took_s)
    return fleet


@pytest.fixture
def untouched(deployed: Fleet) -> Iterator[Fleet]:
    """Afterwards every device runs what it ran before, and nobody but the canary was restarted."""
    in_force, processes = deployed.in_force(), deployed.processes()
    assert None not in in_force
    yield deployed
    assert eventually(lambda: deployed.in_force() == in_force, LIMIT_S), deployed.in_force()
    assert deployed.processes()[1:] == processes[1:]
    assert not any(deployed.status(name)["pending"] for name in NAMES)


def stopped_at_the_canary(run: Run) -> bool:
    """Whether the play failed, and went no further than the first device."""
    return run.status != 0 and set(run.hosts) == {NAMES[0]}


def secret_free(text: str) -> bool:
    """Whether no password is in it."""
    return "secret-of-" not in text


def test_a_first_rollout_brings_every_device_to_work(deployed: Fleet) -> None:
    """From bare: the release is in force, its service is up and confirmed, and no secret was shown or can be read."""
    assert deployed.in_force() == ["1.0.0"] * 3
    for name, host in deployed.hosts.items():
        assert deployed.status(name)["confirmed"] == ["1.0.0"]
        assert host.do("/usr/local/bin/edgescribe", "--version").split()[-1] == "1.0.0"
        assert host.do("systemctl", "is-enabled", "edgescribe").strip() == "enabled"
        assert host.ask("systemctl", "is-active", "edgescribe-rollback.timer").strip() == "inactive"
        assert host.do("stat", "--format=%a %U", "/etc/edgescribe/mqtt-password").strip() == "600 root"
        assert secret_free(host.journal())


def test_a_second_run_changes_nothing(untouched: Fleet) -> None:
    """Same inventory, same release: `changed=0` everywhere, also with `--check`, and nobody is restarted."""
    canary = untouched.processes()[0]
    again = untouched.rollout("1.0.0")
    checked = untouched.rollout("1.0.0", None, "--check")
    noted("second run, nothing to do", again.took_s)
    for run in (again, checked):
        assert (run.status, run.changed, set(run.hosts)) == (0, 0, set(NAMES))
        assert secret_free(run.output)
    assert untouched.processes()[0] == canary


def test_a_device_that_was_restarted_once_passes_its_gate(untouched: Fleet) -> None:
    """Restarts are counted from the gate on: what happened last week says nothing of today."""
    canary = untouched.canary
    canary.do("systemctl", "kill", "--signal=KILL", "edgescribe")
    assert eventually(lambda: canary.property("NRestarts") == "1", LIMIT_S)
    run = untouched.rollout("1.0.0", None, "--limit", NAMES[0], edgescribe_gate_always="true")  # as `-e` says it
    assert run.status == 0
    assert "Ask for the golden utterance" in run.output
    assert canary.property("NRestarts") == "0"


@contextmanager
def broken(host: SystemdHost, release: str) -> Iterator[None]:
    """Meanwhile, a release that had worked on this device crashes as it starts."""
    (module,) = (host.root / "opt/edgescribe/releases" / release).glob(f"lib/python*/site-packages/{CRASHES.module}")
    good = module.read_text(encoding="utf-8")
    module.write_text(good.replace(CRASHES.old, CRASHES.new), encoding="utf-8")
    try:
        yield
    finally:
        module.write_text(good, encoding="utf-8")


def test_an_upgrade_arrives_everywhere_and_can_be_undone(deployed: Fleet) -> None:
    """A new release with other settings replaces the old; the rollback playbook brings release and settings back."""
    run = deployed.rollout("1.1.0", edgescribe_telemetry_interval_s=30.0)
    assert run.status == 0
    noted("upgrade of three devices", run.took_s)
    assert deployed.in_force() == ["1.1.0"] * 3
    config = deployed.canary.root / "etc/edgescribe/config.toml"
    assert "telemetry.interval_s = 30.0" in config.read_text(encoding="utf-8")
    assert deployed.site.play("rollback", edgescribe_bad_version="1.0.0").changed == 0
    assert deployed.in_force() == ["1.1.0"] * 3
    with broken(deployed.canary, "1.0.0"):
        failed = deployed.site.play("rollback", edgescribe_bad_version="1.1.0", edgescribe_ready_timeout_s=25)
    noted("rollback to what does not work any more, taken back", failed.took_s)
    assert stopped_at_the_canary(failed)
    assert deployed.in_force() == ["1.1.0"] * 3
    assert deployed.status(NAMES[0])["confirmed"] == ["1.0.0", "1.1.0"]
    assert "Wait until it is READY" in deployed.status(NAMES[0])["last_failure"]["reason"]
    # By now the inventory knows another broker, and a release to come: the device has heard of neither.
    news = {"edgescribe_mqtt_host": "192.0.2.1", "edgescribe_version": "9.9.9"}
    back = deployed.site.play("rollback", edgescribe_bad_version="1.1.0", **news)
    assert back.status == 0
    noted("rollback of three devices, asked for", back.took_s)
    assert deployed.in_force() == ["1.0.0"] * 3
    assert [deployed.status(name)["confirmed"] for name in NAMES] == [["1.0.0"]] * 3
    assert "telemetry" not in config.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        ("2.0.0", CRASHES, "Wait until it is READY"),
        ("2.1.0", HANGS, "Wait until it is READY"),
        ("2.2.0", BABBLES, "instead of 'Please hold while we try to connect you.'"),
    ],
    ids=["crashes", "hangs", "babbles"],
)
def test_a_bad_release_stops_at_the_canary(version: str, change: Change, said: str, untouched: Fleet) -> None:
    """It is taken back there, the reason is told, and no other device has seen it."""
    run = untouched.rollout(version, change, edgescribe_ready_timeout_s=25)
    assert stopped_at_the_canary(run)
    assert secret_free(run.output)
    failure = untouched.status(NAMES[0])["last_failure"]
    assert failure["release"] == version
    assert said in failure["reason"]  # the output has the name of every task in any case
    noted(f"release {version} tried and taken back", run.took_s)


def flipped(model: Path, scratch: Path) -> tuple[Path, str]:
    """A store with a copy of the model in which one bit differs, and the copy's digest."""
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = scratch / MODEL / model.name
    damaged.parent.mkdir()
    damaged.write_bytes(data)
    return scratch, hashlib.sha256(data).hexdigest()


def test_a_model_that_was_damaged_on_its_way_is_refused_on_arrival(
    untouched: Fleet, pulled: Callable[[str], Path], scratch: Path
) -> None:
    """One flipped bit: the digest is wrong, nothing that runs is touched; a good one repairs the device's copy."""
    store, _ = flipped(pulled(MODEL), scratch)
    name = pulled(MODEL).name
    (digest,) = (file["sha256"] for file in untouched.variables["edgescribe_models"][0]["files"])
    canary, process = untouched.canary, untouched.processes()[0]
    own = canary.root / f"var/lib/edgescribe-models/sha256/{digest}/{name}"
    good = own.read_bytes()
    own.write_bytes((store / MODEL / name).read_bytes())  # the card has lost a bit, so that it has to come anew
    run = untouched.rollout("1.0.0", edgescribe_models_source=str(store))
    assert stopped_at_the_canary(run)
    assert "damaged, or not the file that the inventory means" in run.output
    assert untouched.processes()[0] == process
    assert untouched.rollout("1.0.0", None, "--limit", NAMES[0]).status == 0
    assert own.read_bytes() == good


def test_a_model_that_the_release_does_not_know_is_taken_back(
    untouched: Fleet, pulled: Callable[[str], Path], scratch: Path
) -> None:
    """The inventory itself names the digest of a damaged file: the agent refuses to load it, the gate notices."""
    store, digest = flipped(pulled(MODEL), scratch)
    models = [{"name": MODEL, "files": [{"name": pulled(MODEL).name, "sha256": digest}]}]
    run = untouched.rollout("1.0.0", edgescribe_models=models, edgescribe_models_source=str(store))
    assert stopped_at_the_canary(run)
    assert "edgescribe models pull" in run.output
    link = untouched.canary.root / f"var/lib/edgescribe-models/by-name/{MODEL}"
    assert link.readlink().name != digest


def test_a_device_that_is_cut_off_in_mid_gate_takes_the_release_back_by_itself(untouched: Fleet) -> None:
    """The cable is pulled when the new release is in force: nobody can reach it, and its own clock rolls it back."""
    release = untouched.release("3.0.0")
    variables: dict[str, Any] = {"edgescribe_settle_s": 25, "edgescribe_confirm_within_s": 60}
    began_s = time.monotonic()
    process = untouched.site.start("rollout", **release, **variables)
    try:
        canary = untouched.canary
        assert eventually(lambda: untouched.status(NAMES[0]).get("release") == "3.0.0", LIMIT_S)
        untouched.network.pull(1)
        cut_s = time.monotonic()
        run = untouched.site.finish(process, began_s)
        assert run.status != 0
        assert (set(run.hosts), run.hosts[NAMES[0]]["unreachable"]) == ({NAMES[0]}, 1)
        assert eventually(lambda: untouched.status(NAMES[0])["release"] == "1.0.0", LIMIT_S)
        noted("cut off until rolled back, edgescribe_confirm_within_s=60", time.monotonic() - cut_s)
        assert eventually(lambda: canary.property("ActiveState") == "active", LIMIT_S)
        assert untouched.status(NAMES[0])["last_failure"]["reason"] == "not confirmed in time"
    finally:
        process.kill()
        untouched.network.plug(1)


def test_a_device_that_goes_down_in_mid_gate_takes_the_release_back_as_it_comes_up(untouched: Fleet) -> None:
    """The power is cut while the new release is on trial: it gets no second one, though there would be time left."""
    release = untouched.release("3.1.0")
    began_s = time.monotonic()
    process = untouched.site.start("rollout", **release, edgescribe_settle_s=60)
    try:
        canary = untouched.canary
        assert eventually(lambda: untouched.status(NAMES[0]).get("release") == "3.1.0", LIMIT_S)
        canary.cut()
        booted_s = time.monotonic()
        canary.boot()
        assert eventually(lambda: untouched.status(NAMES[0])["release"] == "1.0.0", LIMIT_S)
        noted("power back until rolled back", time.monotonic() - booted_s)
        assert untouched.status(NAMES[0])["last_failure"]["reason"] == "the device went down while it was on trial"
        assert untouched.site.finish(process, began_s).status != 0
        untouched.network.attach(1, canary.init_pid)
        assert eventually(lambda: canary.property("ActiveState") == "active", LIMIT_S)
    finally:
        process.kill()


@pytest.mark.parametrize("playbook", ["rollout", "rotate_secrets", "rollback"])
def test_a_batch_that_would_outlast_its_clocks_is_refused(playbook: str, untouched: Fleet) -> None:
    """Three devices one after the other, and 90 s: the first would take itself back while the last is at its gate."""
    variables = {"edgescribe_serial": "100%", "edgescribe_confirm_within_s": 90, **untouched.release("1.0.0")}
    run = untouched.site.play(playbook, "--forks", "1", **variables)
    assert run.status != 0
    assert "has to be more than 96" in run.output


def test_rotated_secrets_arrive_and_wrong_ones_are_taken_back(untouched: Fleet) -> None:
    """A password that the broker does not know stops at the canary, which keeps the old one and stays online."""
    password = untouched.canary.root / "etc/edgescribe/mqtt-password"
    before = password.read_text(encoding="utf-8")
    run = untouched.site.play("rotate_secrets", edgescribe_mqtt_password="unheard-of")
    assert stopped_at_the_canary(run)
    assert "unheard-of" not in run.output
    assert password.read_text(encoding="utf-8") == before
    again = untouched.site.play("rotate_secrets")
    assert (again.status, again.changed) == (0, 0)
