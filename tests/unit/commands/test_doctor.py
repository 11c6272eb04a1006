import json
import os
import sys
from pathlib import Path

import pytest

from agent.cli import parser
from agent.commands import doctor
from agent.diagnostics import Finding, Status, facts
from agent.errors import DeviceBusy
from agent.install import extras


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's environment has no say, and nothing is written outside of the test's folder."""
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "a.wav").touch()
    config = tmp_path / "config.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\n[source]\nkind = "wav"\npath = "{tmp_path}/a.wav"\n'
        '[engine]\nkind = "scripted"\n[mqtt]\nenabled = false\n[stdout]\nenabled = true\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("EDGESCRIBE_CONFIG", str(config))


def run(*arguments: str) -> int:
    """The verb, called as the command line calls it."""
    args = parser("doctor").parse_args(["doctor", *arguments])
    status: int = args.run(args)
    return status


def test_a_machine_that_has_what_it_needs_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Looks at this very machine; exit 0 although something may be warned about."""
    assert run("--json") == 0
    found = {finding["subject"]: finding["status"] for finding in json.loads(capsys.readouterr().out)}
    assert found["source"] == "ok"
    assert found["state folder"] in {"ok", "warn"}
    assert {"machine", "whisper.cpp", "clock"} <= set(found)


def test_something_missing_is_exit_1_with_its_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The report goes on to the end, and says what to do."""
    assert run("--set", f"source.path={tmp_path}/b.wav") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"fail source command line: source.path: {tmp_path}/b.wav does not exist: correct the path" in printed
    assert "state folder" in printed


def test_wrong_settings_do_not_keep_the_doctor_from_looking(capsys: pytest.CaptureFixture[str]) -> None:
    """They are a finding among others."""
    assert run("--set", "mqtt.prt=1") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "mqtt.prt is not a setting: did you mean mqtt.port?" in printed
    assert "ok machine" in printed


def test_settings_that_run_would_not_start_with_are_no_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readable is not enough: `check` refuses them, and so does the doctor, in the same words."""
    monkeypatch.setitem(sys.modules, "wyoming", None)
    assert run("--json", "--set", "assist.enabled=true") == 1
    (finding,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "settings"]
    assert finding["status"] == "fail"
    assert extras.missing("assist") in finding["text"]


def test_lines_stay_within_the_terminal_and_nothing_is_cut() -> None:
    """Long texts wrap under their column; without colours where nobody looks."""
    finding = Finding(Status.WARN, "whisper.cpp", "word " * 60, "do " * 60)
    lines = list(doctor.lines(finding, colour=False))
    assert lines[0].startswith("warn  whisper.cpp   word")
    assert max(len(line) for line in lines) <= doctor.WIDTH
    assert " ".join(lines).split().count("word") == 60
    assert " ".join(lines).split().count("do") == 60
    assert "\033" not in "".join(lines)
    assert "\033[33m" in next(doctor.lines(finding, colour=True))
    assert max(len(line) for line in doctor.lines(finding, colour=False, width=60)) <= 60


def test_what_is_to_be_copied_is_in_one_piece() -> None:
    """A path longer than the line is not cut, in the text or in the remedy."""
    path = f"/opt/{'long/' * 30}pip"
    shown = list(doctor.lines(Finding(Status.FAIL, "x", f"no {path}", f"{path} install"), colour=False, width=80))
    assert sum(path in line for line in shown) == 2


@pytest.mark.parametrize(
    ("active", "says", "status", "text"),
    [
        ("active", "listening to microphone default", "ok", "microphone default is in use by the service"),
        ("active", "no microphone default: waiting for it", "warn", "fuser -v"),
        ("failed", "listening to microphone default", "warn", "fuser -v"),
        ("inactive", "", "warn", "fuser -v"),
    ],
)
def test_a_microphone_that_the_service_has_open_is_well(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    active: str,
    says: str,
    status: str,
    text: str,
) -> None:
    """On a healthy device the card cannot be opened a second time. systemd is asked whose it is."""
    systemctl = tmp_path / "systemctl"
    shown = f"LoadState=loaded\nActiveState={active}\nNRestarts=0\nStatusText={says}\n"
    systemctl.write_text(f"#!/bin/sh\ncat <<'EOF'\n{shown}EOF\n", encoding="utf-8")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def busy(_: object) -> None:
        raise DeviceBusy("something else has it open: see what (`sudo fuser -v /dev/snd/*`)")

    monkeypatch.setattr(facts, "AlsaSource", busy)
    exit_status = run("--json", "--set", "source.kind=alsa")
    found = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["source"]["status"] == status
    assert text in found["source"]["text"]
    assert exit_status == (1 if active in {"failed", "inactive"} else 0)
