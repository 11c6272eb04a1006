import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.arm64.root import inside
from tests.support.clips import SPEECH

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(3600)]

CLIP = "en_vm-invalidpassword.flac"
WORDS = "That is not a valid password. Please try again."
MODEL = "tiny.en-q8_0"
PATIENCE = ["--set", "engine.isolation=thread", "--set", "engine.threads=1"]
"""Emulation is some fifty times slower than the boards: no engine process would be ready within its two minutes."""
BOARDS = {"armv8-a": "cortex-a53", "cortex-a76": "cortex-a76"}
"""A CPU of each class, as qemu names it: that of a Raspberry Pi 3, and that of a Raspberry Pi 5."""

Installed = Callable[[str], str]


@pytest.fixture(scope="module")
def data(root: Path, pulled: Callable[[str], Path]) -> Path:
    """The model and a recording, in the root."""
    store = root / "models" / MODEL
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(pulled(MODEL).parent, store)
    shutil.copyfile(SPEECH / CLIP, root / CLIP)
    return Path("/models")


def transcribe(root: Path, program: str, cpu: str, data: Path) -> subprocess.CompletedProcess[str]:
    """Write down the recording."""
    command = [program, "transcribe", f"/{CLIP}", "--model", MODEL, "--set", f"models.dir={data}", *PATIENCE]
    return inside(root, command, cpu, {})


@pytest.mark.parametrize("cpu", sorted(BOARDS))
def test_an_installed_wheelhouse_knows_its_cpu_and_gets_the_words_right(
    root: Path, installed: Installed, data: Path, cpu: str
) -> None:
    """No network, no compiler: pip, `edgescribe doctor` and a recording with real weights, on the class's CPU."""
    program = installed(cpu)
    report = inside(root, [program, "doctor", "--json", "--set", f"models.dir={data}"], BOARDS[cpu], {})
    findings = {one["subject"]: one for one in json.loads(report.stdout)}
    assert findings["whisper.cpp"]["status"] == "ok", findings["whisper.cpp"]
    assert f"built for {cpu}" in findings["whisper.cpp"]["text"]
    assert ("DOTPROD" in findings["whisper.cpp"]["text"]) is (cpu == "cortex-a76")
    assert findings["model"]["status"] == "ok", findings["model"]

    result = transcribe(root, program, BOARDS[cpu], data)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == WORDS


def test_a_newer_cpu_is_told_what_the_plain_wheelhouse_leaves_unused(root: Path, installed: Installed) -> None:
    """`edgescribe doctor` on a Raspberry Pi 5 that was given the wheelhouse of the older ones."""
    report = inside(root, [installed("armv8-a"), "doctor", "--json"], "cortex-a76", {})
    (finding,) = [one for one in json.loads(report.stdout) if one["subject"] == "whisper.cpp"]
    assert finding["status"] == "warn"
    assert "DOTPROD" in finding["text"]
    assert "wheelhouse/aarch64-cortex-a76" in finding["remedy"]


def test_a_cpu_that_lacks_the_features_is_refused_in_one_line(root: Path, installed: Installed, data: Path) -> None:
    """A Raspberry Pi 3 with the wheelhouse of the 5: no illegal instruction, no traceback, and the way out."""
    program = installed("cortex-a76")
    result = transcribe(root, program, "cortex-a53", data)
    assert result.returncode == 70, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "was built for cortex-a76 and needs asimddp, asimdhp, asimdrdm, atomics, fphp, which this CPU lacks" in line
    assert "install from wheelhouse/aarch64-armv8-a" in line
    report = inside(root, [program, "doctor", "--json"], "cortex-a53", {})
    (finding,) = [one for one in json.loads(report.stdout) if one["subject"] == "whisper.cpp"]
    assert finding["status"] == "fail"
    assert "cortex-a76" in finding["text"]


def test_without_the_refusal_the_same_wheel_would_die(root: Path, installed: Installed, data: Path) -> None:
    """What it protects from is real: loaded all the same, the engine gets an illegal instruction (SIGILL, 4)."""
    python = installed("cortex-a76").replace("edgescribe", "python")
    script = (
        "import numpy, _pywhispercpp as pw; "
        f"m = '{data}/{MODEL}/ggml-{MODEL}.bin'; "
        "c = pw.whisper_init_from_file_with_params(m, pw.whisper_context_default_params()); "
        "p = pw.whisper_full_default_params(pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY); p.n_threads = 1; "
        "print(pw.whisper_full(c, p, numpy.zeros(16000, numpy.float32), 16000))"
    )
    result = inside(root, [python, "-c", script], "cortex-a53", {})
    assert result.returncode in (-4, 128 + 4), (result.returncode, result.stderr[-500:])
