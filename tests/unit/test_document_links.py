import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FOLDERS = ("agent", "ansible", "benchmarks", "docs", "supply", "tests")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ELSEWHERE = ("http://", "https://", "mailto:")


def documents() -> list[str]:
    """Every Markdown file that is delivered, links to files included: each is read where it lies."""
    found = [*REPOSITORY.glob("*.md"), *(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.md"))]
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


def anchors(text: str) -> set[str]:
    """What may stand behind `#`, as GitHub makes it of headings."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text))
    return set(words)


@pytest.mark.parametrize("name", documents())
def test_every_link_leads_somewhere(name: str) -> None:
    """Files and headings that documents name exist, seen from where the document lies."""
    document = REPOSITORY / name
    text = document.read_text(encoding="utf-8")
    dead = [link for link in _LINK.findall(text) if not link.startswith(_ELSEWHERE) and not leads(document, link)]
    assert dead == []


def leads(document: Path, link: str) -> bool:
    """Whether there is such a file, and such a heading in it."""
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    return target.exists() and (
        not anchor or anchor in anchors(target.read_text(encoding="utf-8")) or not target.is_file()
    )
