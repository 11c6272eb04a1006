import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agent
from agent import cli
from agent.commands import models
from agent.commands.options import engine_kind_for, password_from
from agent.models.ggml import QUANTISATIONS

HEAVY = ("numpy", "pydantic", "rich", "paho", "soundfile", "pywhispercpp", "ctranslate2", "asyncio")


def test_understanding_a_command_line_takes_nothing_heavy() -> None:
    """`edgescribe --help` needs neither numpy nor pydantic nor an engine: on a Pi they take seconds to load."""
    script = f"import sys, agent.__main__, agent.cli; agent.cli.parser(); print(sorted({HEAVY} & sys.modules.keys()))"
    script = script.replace(str(HEAVY), str(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_verb_has_a_help_line() -> None:
    """The list of commands says of each what it is for."""
    text = cli.parser().format_help()
    listed = re.findall(r"^    ([a-z]+)\s+\S", text, re.MULTILINE)
    assert listed == list(cli.VERBS)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit 0."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edgescribe {agent.__version__}\n"


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_keeps_within_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe as in a wide terminal; every verb has an example."""
    monkeypatch.setenv("COLUMNS", "200")
    top = cli.parser(verb)
    text = _verb(top, verb).format_help() if verb else top.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "\n  " in text.partition("show this help message")[2].partition("\n\n")[2]


def _verb(top: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    (found,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    sub: argparse.ArgumentParser = found.choices[verb]
    return sub


@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete "), ("zsh", "#compdef edgescribe")])
def test_a_shell_can_complete_command_lines(shell: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script knows verbs, actions and options."""
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert mark in script
    assert [word for word in ("transcribe", "quantise", "--password-file") if word not in script] == []


def test_quantisations_are_offered_as_they_are() -> None:
    """The names on the command line are those that can be made."""
    assert ("f16", *QUANTISATIONS) == models.TYPES


@pytest.mark.parametrize("verb", ["watch", "top"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_to_watch_is_above_0(verb: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """0 would be for ever, and `nan` no time at all."""
    with pytest.raises(SystemExit) as ended:
        cli.parser(verb).parse_args([verb, f"--seconds={seconds}"])
    assert ended.value.code == 2
    assert "--seconds: must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("tiny.en-q8_0", "whisper_cpp"),
        ("base-f16", "whisper_cpp"),
        ("tiny.en-ct2", "faster_whisper"),
        ("./own.bin", "whisper_cpp"),
        (".", "faster_whisper"),
    ],
)
def test_a_model_decides_on_its_engine(model: str, kind: str) -> None:
    """Who asks for a model need not know which engine it is for; a folder is one for CTranslate2."""
    assert engine_kind_for(model) == kind


@pytest.mark.parametrize("name", ["-", "password"])
def test_a_byte_order_mark_is_no_part_of_a_password(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows editors put one in front; from a file as by standard input."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("\ufeffhunter2\r\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffhunter2\r\n"))
    assert password_from(name) == "hunter2"
