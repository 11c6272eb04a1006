"""`edgescribe doctor` with a real libasound, and a microphone that has something wrong with it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_process import command, environment
from tests.support.clips import Pcm16, clip, silence
from tests.support.virtual_microphone import Speaker, VirtualMicrophone

pytestmark = pytest.mark.alsa

Examine = Callable[[Pcm16], dict[str, Any]]


@pytest.fixture
def examine(tmp_path: Path) -> Iterator[Examine]:
    """Lets a microphone hear something over and over, and gives the finding about it."""
    microphone = VirtualMicrophone(tmp_path)

    def run(pcm: Pcm16) -> dict[str, Any]:
        speaker = Speaker(microphone, pcm)
        options = ["--json", "--mic", "--set", f"source.device={microphone.device}", "--set", "engine.kind=scripted"]
        try:
            done = subprocess.run(
                command("doctor", *options),
                env=environment(tmp_path, **microphone.environment),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        finally:
            speaker.stop()
        (finding,) = [each for each in json.loads(done.stdout) if each["subject"] == "microphone"]
        return dict(finding)

    yield run
    microphone.unplug()


def test_a_microphone_that_hears_speech_is_well(examine: Examine) -> None:
    """Levels are told; speech is louder than the room."""
    finding = examine(np.concatenate([clip("en_vm-msgforwarded"), silence(1.0)]))
    if "of sound lost" not in finding["text"]:  # a machine that is too busy to play it is told so, and rightly
        assert finding["status"] == "ok", finding
        assert "quiet at -" in finding["text"]


def test_a_microphone_that_is_switched_off_is_found_out(examine: Examine) -> None:
    """Zeros are no quiet room."""
    finding = examine(np.zeros(16_000, np.int16))
    assert finding["status"] == "fail"
    assert "dead silence" in finding["text"]
    assert "alsamixer" in finding["remedy"]


def test_a_microphone_that_is_too_loud_is_found_out(examine: Examine) -> None:
    """What is cut off cannot be heard."""
    loud = np.clip(silence(1.0, level=40_000), -32_768, 32_767).astype(np.int16)
    finding = examine(np.concatenate([loud, silence(1.0)]))
    assert finding["status"] == "warn"
    assert "too loud" in finding["text"]
