import shutil
import subprocess

import pytest

from agent.cli import VERBS, actions, parser
from docs.man_page import man_page


def test_every_verb_and_every_option_is_on_the_page() -> None:
    """The page is built from the parser, with the actions of `models` and `service`."""
    page = man_page()
    assert [verb for verb in (*VERBS, "models pull", "service install") if f"\n.SS {verb}\n" not in page] == []
    options = {name for action in actions(parser(*VERBS)) for name in action.option_strings if action.dest != "help"}
    assert [name for name in options if name.replace("-", "\\-") not in page] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_man_has_no_complaint() -> None:
    """Groff prints no warning about it."""
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww"], input=man_page().encode(), capture_output=True, check=True
    )
    assert done.stderr == b""
    assert b"edgescribe" in done.stdout
