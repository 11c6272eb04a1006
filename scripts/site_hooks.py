"""Hooks of MkDocs: add pages from outside `docs/` to the site, and make links in the repository work on the site.

The sources keep links that work in the repository. Each link is resolved there. A link to a page of the site becomes a
link of the site. A link to another file goes to the repository's public address, or becomes plain text until that
address is decided (`Repository` in `[project.urls]` of pyproject.toml).
"""

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
BRANCH: Final = "main"
ADDED: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "ansible/README.md": "ansible.md",
}
"""Pages from outside `docs/`: path in the repository, path on the site."""
SCHEMAS: Final = "schemas/index.md"
DECISIONS: Final = "decisions"
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_ELSEWHERE: Final = ("http://", "https://", "mailto:", "#")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_ITEM: Final = re.compile(r"^\s*(?:[-*]|\d+\.) ")


def repository_url() -> str | None:
    """Return the public address of the repository, or None if it is not decided."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = str(project["urls"]["Repository"])
    return url.rstrip("/") if url.startswith("https://") else None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the address of the repository, and all decision records below their index."""
    config.repo_url = repository_url() or ""
    records = sorted(path.name for path in (ROOT / "docs" / DECISIONS).glob("0*.md"))
    for section in config.nav or []:
        for pages in section.values():
            for page in pages if isinstance(pages, list) else []:
                if "Decisions" in page:
                    page["Decisions"] = [
                        {"All decisions": f"{DECISIONS}/README.md"},
                        *(f"{DECISIONS}/{name}" for name in records),
                    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs/`, and a list of the JSON Schemas."""
    for source, target in ADDED.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, SCHEMAS, content=schema_page()))
    return files


def schema_page() -> str:
    """Return a page with a link to each JSON Schema."""
    names = sorted(path.name for path in (ROOT / "docs/schemas").glob("*.json"))
    rows = "\n".join(f"| `{name.removesuffix('.json').replace('-', '/')}` | [{name}]({name}) |" for name in names)
    return (
        "# JSON Schemas\n\n"
        "After this page you can check each payload of the [MQTT contract](../mqtt.md) by program.\n\n"
        "The [AsyncAPI 3 document](../asyncapi.json) uses the same schemas.\n\n"
        f"| schema | file |\n|---|---|\n{rows}\n"
    )


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make links work on the site, and put an empty line before each list, as Python-Markdown needs it."""
    target = page.file.src_uri
    source = next((path for path, added in ADDED.items() if added == target), f"docs/{target}")
    if target == SCHEMAS:
        return markdown
    return "\n".join(_with_links(line, source, target) for line in _lines(markdown))


def _lines(markdown: str) -> list[str]:
    """Return the lines of a page; lines of code have a mark in front, which `_with_links` removes."""
    lines: list[str] = []
    fenced = indented = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        if _FENCE.match(line):
            fenced = not fenced
        indented = line.startswith("    ") and (indented or not before.strip("\0 "))
        starts = _ITEM.match(line) and before.strip() and not before.startswith(("|", " ")) and not _ITEM.match(before)
        if starts and not fenced:
            lines.append("")
        lines.append(f"\0{line}" if fenced or indented else line)
    return lines


def _with_links(line: str, source: str, target: str) -> str:
    if line.startswith("\0"):
        return line.removeprefix("\0")
    return _LINK.sub(lambda link: _link(link, source, target), line)


def _link(link: re.Match[str], source: str, target: str) -> str:
    mark, text, address = link.groups()
    if address.startswith(_ELSEWHERE):
        return link[0]
    path, hash_, anchor = address.partition("#")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (there := _on_site(wanted)) is not None:
        return f"{mark}[{text}]({posixpath.relpath(there, posixpath.dirname(target) or '.')}{hash_}{anchor})"
    if not (ROOT / wanted).exists():
        return link[0]  # MkDocs complains about it
    if url := repository_url():
        return f"{mark}[{text}]({url}/blob/{BRANCH}/{wanted}{hash_}{anchor})"
    return text


def _on_site(path: str) -> str | None:
    """Return the place of a file of the repository in the sources of the site, or None if it is not there."""
    if path in ADDED:
        return ADDED[path]
    if path == "docs/schemas":
        return SCHEMAS
    below = path.removeprefix("docs/")
    file = ROOT / path
    if below == path or file.suffix == ".py" or not file.exists():
        return None
    return below if file.is_file() else f"{below}/README.md" if (file / "README.md").exists() else None
