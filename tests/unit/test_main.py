import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = (sys.executable, "-m", "agent", "config")
PRINT_AN_ARROW = """\
import sys, agent.__main__
sys.modules["agent.cli"] = type(sys)("agent.cli")
sys.modules["agent.cli"].main = lambda _: print("→")
sys.exit(agent.__main__.main())
"""
INTERRUPT_THE_IMPORT = """\
import sys, agent.__main__
class Interrupting:
    def find_spec(self, name, *_):
        if name == "agent.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.exit(agent.__main__.main())
"""


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("argument", ["config", "--help"])
def test_a_full_disk_under_the_output_is_said_in_one_line(argument: str, variables: dict[str, str]) -> None:
    """`edgescribe config > FILE` on a full disk: why, and exit 74, so that nobody takes the file for whole."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*CONFIG[:-1], argument],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | variables,
        )
    assert done.stderr == "edgescribe: standard output cannot be written: No space left on device\n"
    assert done.returncode == 74


def test_a_reader_that_leaves_is_no_matter_for_complaints() -> None:
    """`edgescribe config | true` says nothing and exits as who was told by the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(CONFIG, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 141)


def test_a_closed_output_is_nothing_to_print_on() -> None:
    """`edgescribe config >&-` runs as with /dev/null."""
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *CONFIG], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "ascii:surrogateescape"])
def test_an_alphabet_without_arrows_gets_their_numbers(encoding: str) -> None:
    """What the terminal's encoding does not have is written as Python and JSON write it, and the command goes on."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_AN_ARROW],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("\\u2192\n", "", 0)


def test_ctrl_c_while_it_loads_ends_it_as_later() -> None:
    """No trace and exit 130, also before the command line is understood."""
    done = subprocess.run([sys.executable, "-c", INTERRUPT_THE_IMPORT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 130)


def test_other_faults_are_not_taken_for_the_output() -> None:
    """A file of ours that cannot be written is not said to be standard output."""
    script = PRINT_AN_ARROW.replace('print("→")', 'open("/nowhere/file", "w")')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "standard output" not in done.stderr
    assert "/nowhere/file" in done.stderr
    assert done.returncode == 1
