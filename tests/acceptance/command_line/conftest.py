import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.agent_process import LIMIT_S, command, environment, options
from tests.support.bundled import sentences
from tests.support.clips import SPEECH

CLIP = SPEECH / "en_conf-waitforleader.flac"
CLIP_TEXT = sentences()[0]
MODEL = "tiny.en-q8_0"
ESCAPE = "\x1b["


class Edgescribe(Protocol):
    """Runs `edgescribe` to its end, with its output in pipes."""

    def __call__(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Return what it said."""


@pytest.fixture
def edgescribe(tmp_path: Path) -> Edgescribe:
    """With an empty configuration and nothing but what `variables` say."""

    def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*map(str, arguments)),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            env=environment(tmp_path, **variables),
        )

    return run


SCRIPTED = options({"engine__kind": "scripted", "engine__texts": ["one", "two", "three"]})
NO_BROKER = options({"mqtt__enabled": False, "stdout__enabled": True})
