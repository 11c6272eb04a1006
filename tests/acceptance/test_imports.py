"""The acceptance tests know the agent from outside only, so they hold for any structure of its code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

ACCEPTANCE = Path(__file__).parent
_OF_THE_AGENT = re.compile(r"^\s*(from|import) agent\b", re.MULTILINE)
"""In scripts inside strings, too."""


def imported_tests(file: Path) -> Iterator[Path]:
    """The modules of `tests` that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests."):
            yield REPOSITORY / f"{node.module.replace('.', '/')}.py"


def with_imports(files: set[Path]) -> set[Path]:
    """Files and everything of `tests` that they need."""
    known: set[Path] = set()
    while new := files - known:
        known |= new
        files = {found for file in new for found in imported_tests(file)}
    return known


def test_neither_acceptance_tests_nor_their_helpers_import_the_agent() -> None:
    """No file below `tests/acceptance`, no helper that one of them imports, and no fixture that they share."""
    files = with_imports({REPOSITORY / "tests" / "conftest.py", *ACCEPTANCE.rglob("*.py")})
    assert len(files) > 30
    assert {str(file) for file in files if _OF_THE_AGENT.search(file.read_text(encoding="utf-8"))} == set()
    assert {str(file) for file in files if "integration" in file.parts or "unit" in file.parts} == set()
