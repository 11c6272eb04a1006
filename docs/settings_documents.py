"""Writes `docs/settings.md`, `docs/config.example.toml`, a table of `docs/mqtt.md`, and the role's settings.

python -m docs.settings_documents [FOLDER]
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from agent.config.schema import CHOICE, Group, Setting, dotted, groups
from agent.config.toml import value
from agent.config.tunables import COMMANDED, takes_effect
from agent.config.types import Fraction, in_words
from docs import ansible_role

SETTINGS_PAGE = "settings.md"
EXAMPLE = "config.example.toml"
MQTT_PAGE = "mqtt.md"

INTRODUCTION = """\
# Settings

<!-- Generated from agent/config/ by `python -m docs.settings_documents`; edit that folder instead. -->

After this page you can set every option of edgescribe.

The agent reads settings from these places. The highest wins:

1. the command line: `--set engine.threads=2`, as often as needed
2. the environment: `EDGESCRIBE_ENGINE__THREADS=2`
3. systemd credentials: `LoadCredential=mqtt__password:/etc/edgescribe/mqtt-password`, or `mqtt-password:…`
4. `conf.d/*.toml` beside the configuration file; the last name wins
5. the configuration file: `--config FILE`, else `$EDGESCRIBE_CONFIG`, else `/etc/edgescribe/config.toml`
6. the defaults below

The agent merges them key by key. A layer that changes the `kind` of the engine or the source drops the keys of the old
kind from lower layers. It keeps the keys that whisper_cpp, faster_whisper and auto share (`engine.threads`,
`engine.language`, `engine.initial_prompt`).

`edgescribe config` prints the values in force and their places. `edgescribe check` explains errors in them. An unknown
key is an error, in the environment too. In the environment and after `--set`, write a list as JSON:
`EDGESCRIBE_ENGINE__TEXTS='["one", "two"]'`.

The column "takes effect on" says how a running agent takes a new value:

- `at once`: a [command](mqtt.md#commands) changes it while the agent runs. A reload applies a new value, too.
- `reload`: `systemctl reload edgescribe` (SIGHUP) applies it. The agent goes on capturing sound.
- `restart`: `systemctl restart edgescribe` applies it.

[config.example.toml](config.example.toml) holds every setting with its default, ready to be edited.
"""

EXAMPLE_HEAD = """\
# Every setting of edgescribe with its default, commented out. Generated from agent/config/.
# Copy it to /etc/edgescribe/config.toml and remove the `#` of each value that you change. `edgescribe check` checks it.
"""

_COMMANDS = re.compile(r"(?<=<!-- Generated from agent/config/tunables\.py -->\n\n)(\|.*\n)+", re.MULTILINE)


def settings_page() -> str:
    """Return the text of `docs/settings.md`: one section a table of the TOML file, one row a setting."""
    parts = [INTRODUCTION]
    for group in groups():
        parts.append(f"## {_heading(group)}\n\n{group.description if group.path else 'At the top of the file.'}\n")
        parts.append("\n".join(_table(group)) + "\n")
    return "\n".join(parts)


def example() -> str:
    """Return the text of `docs/config.example.toml`. Tables of other kinds than the default are commented out."""
    lines = [EXAMPLE_HEAD]
    opened: set[tuple[str, ...]] = set()
    for group in groups():
        lines.extend(_example_table(group, first=group.path not in opened))
        opened.add(group.path)
    return "\n".join(lines)


def mqtt_page(text: str) -> str:
    """Return `text`, that of `docs/mqtt.md`, with a current table of the commands that change a setting."""
    rows = ["| command | `value` | setting | effect |", "|---|---|---|---|"]
    for tunable in COMMANDED:
        allowed = "0 to 1" if tunable.type is Fraction else in_words(tunable.type.__metadata__)
        rows.append(f"| `{tunable.command}` | {allowed} | `{tunable.key}` | {tunable.effect} |")
    return _COMMANDS.sub(lambda _old: "\n".join(rows) + "\n", text)


def _heading(group: Group) -> str:
    if not group.path:
        return "Top level"
    return f"`[{dotted(group.path)}]`" + (f' with `kind = "{group.kind}"`' if group.kind else "")


def _table(group: Group) -> Iterator[str]:
    yield "| key | default | allowed | takes effect on | description |"
    yield "|---|---|---|---|---|"
    for setting in group.settings:
        words = (setting.bounds,) if setting.type == CHOICE else (setting.type, setting.bounds)
        name = f"`{setting.path[-1]}`<br><sub>`{setting.variable}`</sub>"
        text = setting.description or f"`{setting.path[-1]}` chooses between these tables."
        cells = (_default(setting), _cell(", ".join(filter(None, words))), takes_effect(setting.key), _cell(text))
        yield f"| {name} | {' | '.join(cells)} |"


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
    """Write the documents into `folder`; of `mqtt.md`, if it is there, the generated table."""
    (folder / SETTINGS_PAGE).write_text(settings_page(), encoding="utf-8")
    (folder / EXAMPLE).write_text(example(), encoding="utf-8")
    if (mqtt := folder / MQTT_PAGE).exists():
        mqtt.write_text(mqtt_page(mqtt.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        ansible_role.write(ansible_role.ROLE)
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
