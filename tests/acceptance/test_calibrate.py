"""`edgescribe calibrate` on this machine with real weights, and what `engine.kind = "auto"` then does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundled import RECORDING

MODELS = ("tiny.en-q8_0", "tiny.en-ct2")
MINUTES = 1.0
NAME = "calibration.json"
pytestmark = pytest.mark.weights


@dataclass(frozen=True)
class Device:
    """A state folder with the models that were pulled."""

    folder: Path

    def run(self, *arguments: str, settings: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """`edgescribe …`, with nothing of this machine's own settings."""
        environment = {key: text for key, text in os.environ.items() if not key.startswith("EDGESCRIBE_")}
        options = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "agent", *arguments, "--set", f"state_dir={self.folder}", *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@dataclass(frozen=True)
class Calibrated(Device):
    """After `edgescribe calibrate --json`."""

    document: dict[str, Any]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, pulled: Callable[[str], Path]) -> Calibrated:
    """Calibrated once for all tests here."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "models").mkdir()
    for name in MODELS:
        path = pulled(name)
        (folder / "models" / name).symlink_to(path if path.is_dir() else path.parent)
    done = Device(folder).run("calibrate", "--json", "--minutes", str(MINUTES), settings=("engine.language=en",))
    assert done.returncode == 0, done.stderr
    return Calibrated(folder, json.loads(done.stdout))


def test_every_model_that_is_here_gets_figures(device: Calibrated) -> None:
    """Both engines hear the bundled sentences; the figures are possible ones."""
    measured = {one["candidate"]["model"]: one for one in device.document["measurements"]}
    assert set(measured) == set(MODELS)
    for one in measured.values():
        assert one["words"] > 60
        assert one["errors"] <= 0.05 * one["words"]
        assert 0 < one["cpu_per_speech"] < 5
        assert 0 < one["latency_p50_s"] < 30
        assert 80 < one["peak_mb"] < 600
        assert one["passes"] >= 1


def test_what_is_printed_is_what_is_kept_and_it_says_why(device: Calibrated) -> None:
    """The file holds the same document; the choice was measured, and is explained."""
    kept = json.loads((device.folder / NAME).read_text())
    assert kept == device.document
    assert kept["choice"]["candidate"] in [one["candidate"] for one in kept["measurements"]]
    assert kept["front"]
    assert len(kept["choice"]["reasons"]) >= 1
    cores = kept["fingerprint"]["cores"]
    assert cores == len(os.sched_getaffinity(0))
    assert all(one["candidate"]["threads"] <= max(1, cores - 1) for one in kept["measurements"])


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_auto_runs_what_was_chosen_and_says_what_that_is(device: Calibrated, isolation: str) -> None:
    """The agent's info, its state and every transcript name the real engine and model; the words are right."""
    done = device.run(
        "run",
        settings=(
            "engine.kind=auto",
            f"engine.isolation={isolation}",
            "engine.language=en",
            "mqtt.enabled=false",
            "stdout.enabled=true",
            "source.kind=wav",
            f"source.path={RECORDING}",
            "source.pace=flat_out",
        ),
    )
    assert done.returncode == 0, done.stderr
    chosen = device.document["choice"]["candidate"]
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    by_topic: dict[str, list[Any]] = {}
    for message in messages:
        by_topic.setdefault(message["topic"].rpartition("/")[2], []).append(message["payload"])
    named = [*by_topic["info"], *by_topic["state"], *by_topic["transcript"]]
    assert {(one["engine"], one["model"]) for one in named} == {(chosen["engine"], chosen["model"])}
    assert "conference will begin" in by_topic["transcript"][0]["text"]
    assert f"{chosen['engine']} {chosen['model']}" in done.stderr


def test_config_check_and_doctor_know_what_auto_comes_to(device: Calibrated) -> None:
    """Whoever asks learns which engine it is."""
    chosen = device.document["choice"]["candidate"]
    engine = f"{chosen['engine']} {chosen['model']}"
    settings = ("engine.kind=auto", "engine.language=en", "source.kind=wav", f"source.path={RECORDING}")
    assert f"# {engine}" in device.run("config", settings=settings).stdout
    check = device.run("check", settings=settings)
    assert (check.returncode, check.stdout, check.stderr) == (0, "configuration is fine\n", "")
    doctor = device.run("doctor", "--json", settings=(*settings, "mqtt.enabled=false", "stdout.enabled=true"))
    findings = {one["subject"]: one for one in json.loads(doctor.stdout)}
    assert engine in findings["calibration"]["text"]
    assert findings["calibration"]["status"] == "ok"
    assert findings["model"]["status"] == "ok"


def test_without_models_the_command_says_what_to_do(tmp_path: Path) -> None:
    """One line, exit 78, nothing written."""
    done = Device(tmp_path).run("calibrate")
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "edgescribe: no model is on this device: run `edgescribe calibrate --pull`, which fetches some to measure"
    ]
    assert not (tmp_path / NAME).exists()
