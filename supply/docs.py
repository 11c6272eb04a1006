"""Writes `docs/licences.md` from the catalogue and a wheelhouse with all packages: python -m supply.docs FOLDER."""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from supply.house import ROOT, wheels_in
from supply.licences import EMBEDDED, licence
from supply.wheel import Wheel

PAGE: Final = ROOT / "docs/licences.md"
CATALOGUE: Final = ROOT / "models/manifest.toml"
BUNDLED: Final = (
    ("Silero VAD's weights", "MIT", "agent/vad/LICENSE.silero"),
    ("the recording of `edgescribe demo`", "CC-BY-SA-3.0", "agent/clips/ATTRIBUTION.md"),
)
"""Parts of edgescribe's own wheel that came from elsewhere: name, licence, file with the licence."""


def page(wheels: Sequence[Wheel], catalogue: str) -> str:
    """Return the text of the page; `catalogue` is the text of models/manifest.toml."""
    packages = "".join(
        f"| {one.name} | {one.version.partition('+')[0]} | {licence(one)} | {one.home} |\n"
        for one in wheels
        if one.name != "edgescribe"
    )
    models = "".join(
        f"| {one['name']} | {one['licence']} | {_origin(one)} |\n" for one in tomllib.loads(catalogue)["model"]
    )
    bundled = "".join(f"| {name} | {terms} | [{path}](../{path}) |\n" for name, terms, path in BUNDLED)
    embedded = ", ".join(f"{name} ({terms})" for name, terms in EMBEDDED.items())
    return f"""\
# Licences

<!-- Made by `make lock`. -->

After this page you know the licence of every part that comes with edgescribe.

edgescribe is under Apache-2.0. These parts come with it.

## In its own wheel

| | licence | see |
|---|---|---|
{bundled}
## Packages

These are the packages of `locks/faster-whisper.txt`. Without `EXTRA=faster-whisper` a wheelhouse has fewer. Each wheel
has the texts in its `.dist-info`. pywhispercpp contains {embedded}.

| package | version | licence | from |
|---|---|---|---|
{packages}
## Models

The device downloads models; no wheel contains them. The weights are OpenAI's (MIT). Conversions and quantised files
have the same licence.

| model | licence | from |
|---|---|---|
{models}"""


def _origin(model: dict[str, Any]) -> str:
    first = model["sources"][0]
    return first["repository"] if first["kind"] == "hub" else f"made from {first['model']}"


if __name__ == "__main__":
    PAGE.write_text(page(wheels_in(Path(sys.argv[1])), CATALOGUE.read_text(encoding="utf-8")), encoding="utf-8")
