import argparse
import os
import signal
from pathlib import Path

import pytest

from agent.calibration import run as calibration
from agent.commands import calibrate


def parsed(tmp_path: Path, *arguments: str) -> argparse.Namespace:
    """The verb's command line."""
    parser = argparse.ArgumentParser()
    calibrate.add_parser(parser.add_subparsers())
    return parser.parse_args(["calibrate", *arguments, "--set", f"state_dir={tmp_path}"])


def test_what_ends_a_service_lets_it_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are stopped between two clips, and nobody else would end them."""
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    monkeypatch.setattr(calibration, "calibrate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    args = parsed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        args.run(args)
