import argparse
import os
import signal
from pathlib import Path

import pytest

from agent.calibrate.measure import Findings
from agent.calibrate.run import why_none
from agent.cli import parser
from agent.commands import calibrate
from agent.models.calibration import Skipped


def parsed(tmp_path: Path, *arguments: str) -> argparse.Namespace:
    """The verb's command line."""
    return parser("calibrate").parse_args(["calibrate", *arguments, "--set", f"state_dir={tmp_path}"])


def test_what_ends_a_service_lets_it_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are stopped between two clips, and nobody else would end them."""
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    args = parsed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        args.run(args)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "61"])
def test_minutes_that_are_none_are_refused_with_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Not with the name of a function."""
    with pytest.raises(SystemExit):
        parsed(tmp_path, f"--minutes={text}")
    assert f"must be a number above 0 and at most 60, not '{text}'" in capsys.readouterr().err


def test_the_remedy_fits_the_trouble() -> None:
    """Seconds as seconds, and --minutes only where minutes are lacking."""
    skipped = (Skipped("whisper_cpp", "tiny.en-q8_0", "cannot be loaded"),)
    why = "whisper_cpp tiny.en-q8_0: cannot be loaded"
    assert why_none(Findings((), skipped), 1.5) == why
    assert why_none(Findings((), skipped, out_of_time=True), 1.5) == (
        f"{why} (1.5 s are too short: set a larger --minutes)"
    )
