import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from agent.bench.records import Journal, Measurement

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "context_curve.py"
HEARD = Measurement(
    system="stock-pywhispercpp:tiny.en-q8_0",
    set_name="speech",
    clip_id="1",
    repeat=0,
    language="en",
    reference="turn on the light please now",
    audio_s=4.0,
    text="turn on the light please now",
    wall_s=1.0,
    cpu_s=1.0,
    peak_rss_bytes=1,
    pss_bytes=1,
)


def draw(folder: Path, *measurements: Measurement) -> "subprocess.CompletedProcess[str]":
    """Run the script over a run with these results."""
    journal = Journal(folder)
    for measurement in measurements:
        journal.write(measurement)
    journal.close()
    command = [sys.executable, str(SCRIPT), "--out", str(folder / "curve.svg"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_policy_is_drawn_against_stock_on_the_clips_that_both_heard(tmp_path: Path) -> None:
    """One word of six wrong is 16.67 points; what only one of them heard does not count; the picture is an SVG."""
    ours = replace(
        HEARD, system="whisper_cpp:tiny.en-q8_0:context=256+64", text="turn off the light please now", cpu_s=0.25
    )
    only_ours = replace(ours, clip_id="2", text="")
    wider = replace(ours, system="whisper_cpp:tiny.en-q8_0:context=1024+64", text=HEARD.text, cpu_s=0.5)
    done = draw(tmp_path, HEARD, ours, only_ours, wider)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "| whisper_cpp tiny.en-q8_0 | 256+64 | 1 | +16.67 [+16.7, +16.7] | 0.250 |"
    assert second.startswith("| whisper_cpp tiny.en-q8_0 | 1024+64 | 1 | +0.00")
    assert ET.parse(tmp_path / "curve.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own output


def test_a_run_without_policies_is_told_so(tmp_path: Path) -> None:
    """One line, and no file."""
    done = draw(tmp_path, HEARD)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no system with context=MIN+MARGIN")
    assert not (tmp_path / "curve.svg").exists()
