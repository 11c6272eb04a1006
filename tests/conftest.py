"""Fixtures for all tests. They know the agent by its command line only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.agent_process import command
from tests.support.mosquitto import Mosquitto, StartMosquitto
from tests.support.receiver import Receiver

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """A folder of models that stays from one run of the tests to the next: a clone downloads each model once."""
    root = os.environ.get("EDGESCRIBE_TEST_MODELS")
    return Path(root) if root else REPOSITORY / ".edgescribe" / "test-models"


@pytest.fixture(scope="session")
def pulled(models_folder: Path) -> Callable[[str], Path]:
    """Gives the verified file or folder of a model, pulled by `edgescribe models pull`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EDGESCRIBE_")}
    ours["EDGESCRIBE_MODELS__DIR"] = str(models_folder)

    @cache
    def pull(name: str) -> Path:
        for verb in ("pull", "verify"):
            done = subprocess.run(
                command("models", verb, name), env=ours, check=False, capture_output=True, text=True, cwd=REPOSITORY
            )
            if done.returncode:
                pytest.fail(f"edgescribe models {verb} {name}: {done.stderr}")
        folder = models_folder / name
        return next(folder.glob("ggml-*.bin"), folder)

    return pull


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """A real mosquitto, killed at the end."""
    brokers: list[Mosquitto] = []

    def start_one(*lines: str, start: bool = True) -> Mosquitto:
        broker = Mosquitto(tmp_path, *(lines or ("allow_anonymous true",)))
        brokers.append(broker)
        if start:
            broker.start()
        return broker

    yield start_one
    for broker in brokers:
        broker.kill()


@pytest.fixture
def broker(start_mosquitto: StartMosquitto) -> Mosquitto:
    """A real mosquitto that lets every client in."""
    return start_mosquitto()


@pytest.fixture
def receiver(broker: Mosquitto) -> Iterator[Receiver]:
    """A subscriber that is there before the agent and sees everything."""
    with Receiver(broker.port) as subscriber:
        yield subscriber


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system; skips the test where that is not permitted."""
    mounted: list[Path] = []

    def mount_one(*arguments: str) -> Path:
        folder = tmp_path / f"mount-{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a file system of the test's own needs root")
        result = subprocess.run(["mount", *arguments, folder], check=False, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"not permitted to mount here: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount_one
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
