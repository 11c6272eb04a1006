import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.clips import SPEECH

pytestmark = pytest.mark.weights

CLIP = SPEECH / "en_vm-msgforwarded.flac"
NEEDS = {"cpu": "the-future", "arch": os.uname().machine, "needs": ["telepathy"]}


def edgescribe(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb with the packages in `site` before all others."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(site)},
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Says of the installed whisper.cpp that it was built for a CPU that nobody has, and kills who loads it."""
    info = tmp_path / "pywhispercpp-1.5.1+the.future.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: pywhispercpp\nVersion: 1.5.1+the.future\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "cpu.json").write_text(json.dumps(NEEDS), encoding="utf-8")
    module = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    (tmp_path / "_pywhispercpp.py").write_text(module, encoding="utf-8")
    return tmp_path


def test_a_whisper_for_another_cpu_is_refused_before_it_is_loaded(site: Path, pulled: Callable[[str], Path]) -> None:
    """One line with the way out, and nobody died of an illegal instruction."""
    store = pulled("tiny.en-q8_0").parent.parent
    # In a thread, as an engine process knows no PYTHONPATH.
    settings = ("--set", f"models.dir={store}", "--set", "engine.isolation=thread")
    result = edgescribe(site, "transcribe", str(CLIP), *settings)
    assert result.returncode == 70, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "pywhispercpp 1.5.1+the.future was built for the-future and needs telepathy, which this CPU lacks" in line
    assert "wheelhouse/" in line


def test_doctor_looks_at_a_whisper_for_another_cpu_without_loading_it(site: Path) -> None:
    """The doctor survives, and says what is wrong."""
    result = edgescribe(site, "doctor", "--json")
    (finding,) = [one for one in json.loads(result.stdout) if one["subject"] == "whisper.cpp"]
    assert finding["status"] == "fail"
    assert "telepathy" in finding["text"]
