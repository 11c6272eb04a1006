"""Writes `docs/settings.md`, `docs/config.example.toml` and the settings of the Ansible role.

python -m docs.settings_documents [FOLDER]
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from agent.config.schema import CHOICE, Group, Setting, dotted, groups
from agent.config.toml import value
from docs import ansible_role

SETTINGS_PAGE = "settings.md"
EXAMPLE = "config.example.toml"

INTRODUCTION = """\
# Settings

<!-- Generated from agent/config/ by `python -m docs.settings_documents`; edit that file instead. -->

Where a setting can stand, highest first:

1. the command line: `--set engine.threads=2`, as often as needed
2. the environment: `EDGESCRIBE_ENGINE__THREADS=2`
3. systemd credentials: `LoadCredential=mqtt__password:/etc/edgescribe/mqtt-password`; `mqtt-password:…` does as well
4. `conf.d/*.toml` beside the configuration file; the last name wins
5. the configuration file: `--config FILE`, else `$EDGESCRIBE_CONFIG`, else `/etc/edgescribe/config.toml`
6. the defaults below

They are merged key by key. A layer that changes the `kind` of the engine or the source drops what lower layers said
for the old kind, except the keys that whisper_cpp, faster_whisper and auto share (`engine.threads`, `engine.language`,
`engine.initial_prompt`).

`edgescribe config` prints what is in force and where it came from; `edgescribe check` says what is wrong with it.
What is unknown is refused, in the environment too. A list is written as JSON in the environment and after `--set`:
`EDGESCRIBE_ENGINE__TEXTS='["one", "two"]'`.

[config.example.toml](config.example.toml) holds every setting with its default, ready to be edited.
"""

EXAMPLE_HEAD = """\
# Every setting of edgescribe with its default, commented out. Generated from agent/config/.
# Goes to /etc/edgescribe/config.toml; remove the `#` where a value should differ. `edgescribe check` checks it.
"""


def settings_page() -> str:
    """The text of `docs/settings.md`: one section a table of the TOML file, one row a setting."""
    parts = [INTRODUCTION]
    for group in groups():
        parts.append(f"## {_heading(group)}\n\n{group.description if group.path else 'At the top of the file.'}\n")
        parts.append("\n".join(_table(group)) + "\n")
    return "\n".join(parts)


def example() -> str:
    """The text of `docs/config.example.toml`. The tables of other kinds than the default are commented out."""
    lines = [EXAMPLE_HEAD]
    opened: set[tuple[str, ...]] = set()
    for group in groups():
        lines.extend(_example_table(group, first=group.path not in opened))
        opened.add(group.path)
    return "\n".join(lines)


def _heading(group: Group) -> str:
    if not group.path:
        return "Top level"
    return f"`[{dotted(group.path)}]`" + (f' with `kind = "{group.kind}"`' if group.kind else "")


def _table(group: Group) -> Iterator[str]:
    yield "| key | default | allowed | what it does |"
    yield "|---|---|---|---|"
    for setting in group.settings:
        words = (setting.bounds,) if setting.type == CHOICE else (setting.type, setting.bounds)
        allowed = ", ".join(word for word in words if word)
        name = f"`{setting.path[-1]}`<br><sub>`{setting.variable}`</sub>"
        what = setting.description or f"`{setting.path[-1]}` chooses between these tables."
        yield f"| {name} | {_default(setting)} | {_cell(allowed)} | {_cell(what)} |"


def _default(setting: Setting) -> str:
    if setting.required:
        return "*required*"
    return "–" if setting.default is None else f"`{value(setting.default)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _example_table(group: Group, *, first: bool) -> Iterator[str]:
    if group.path:
        head = f"[{dotted(group.path)}]"
        yield f"{head if first else '# ' + head}  # {group.description}"
    for setting in group.settings:
        yield from textwrap.wrap(setting.description, 112, initial_indent="## ", subsequent_indent="## ")
        yield f"# {setting.path[-1]} = {'…' if setting.default is None else value(setting.default)}"
    yield ""


def write(folder: Path) -> None:
    """Write both files into `folder`."""
    (folder / SETTINGS_PAGE).write_text(settings_page(), encoding="utf-8")
    (folder / EXAMPLE).write_text(example(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        ansible_role.write(ansible_role.ROLE)
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
