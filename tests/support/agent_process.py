"""A real `edgescribe` in a process of its own, that neither this machine's settings nor its environment reach."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.support.clips import SAMPLE_RATE_HZ, Pcm16

LIMIT_S = 120.0
"""Generous: machines that run tests are busy."""


def command(*arguments: str) -> list[str]:
    """The command line of `edgescribe` with these arguments."""
    return [sys.executable, "-m", "agent", *arguments]


def environment(folder: Path, **further: str) -> dict[str, str]:
    """This process's environment without settings, with an empty configuration file and state below `folder`."""
    config = folder / "config.toml"
    config.touch()
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith("EDGESCRIBE_")}
    defaults = {
        "EDGESCRIBE_CONFIG": str(config),
        "EDGESCRIBE_STATE_DIR": str(folder / "state"),
        "PYTHONFAULTHANDLER": "1",
    }
    return {**ours, **defaults, **further}


def mqtt_settings(mqtt: Mapping[str, Any]) -> dict[str, object]:
    """The settings `mqtt.*` with `__` for dots; TLS is on where it has settings."""
    tls = {f"mqtt__tls__{key}": value for key, value in mqtt.get("tls", {}).items()}
    plain = {f"mqtt__{key}": value for key, value in mqtt.items() if key != "tls"}
    return {**plain, **tls, "mqtt__tls__enabled": bool(tls)}


def options(settings: Mapping[str, object]) -> list[str]:
    """`--set` for each setting; the dot of a key is written as `__`."""
    texts = {key.replace("__", "."): _text(value) for key, value in settings.items()}
    return [argument for key, text in texts.items() for argument in ("--set", f"{key}={text}")]


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def write_wav(path: Path, pcm: Pcm16) -> Path:
    """Save samples (16 kHz) as a recording."""
    soundfile.write(path, pcm, SAMPLE_RATE_HZ, subtype="PCM_16", format="WAV")
    return path


class AgentProcess:
    """`edgescribe run` with settings; its output goes to files. `under` is a command that runs it."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, under: Sequence[str] = (), **variables: str
    ) -> None:
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [*under, *command("run", *options(settings))],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(folder, **variables),
            )

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._stderr.read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        """True as long as it has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end."""
        self._process.send_signal(number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Its exit status; the test fails with what it said if it does not end."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the agent did not end within {limit_s:.0f} s: {self.stderr}")

    def await_log(self, text: str, limit_s: float = LIMIT_S) -> None:
        """Wait until it has logged `text`."""
        deadline_s = time.monotonic() + limit_s
        while text not in self.stderr:
            if not self.running or time.monotonic() > deadline_s:
                pytest.fail(f"the agent did not say {text!r}: {self.stderr}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once; idempotent."""
        self._process.kill()
        self._process.wait()
