"""The licences of the packages."""

from collections.abc import Iterable
from typing import Final

from supply.wheel import Wheel

SPDX: Final = {
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "PSF": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX's names for the licence texts of packages without an expression."""
EMBEDDED: Final = {
    "whisper.cpp": "MIT",
    "ggml": "MIT",
    "pybind11": "BSD-3-Clause",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
}
"""Licences of the code inside pywhispercpp."""


def licence(wheel: Wheel) -> str:
    """Return an SPDX expression if it is known, else the package's own words, else `unknown`."""
    said = wheel.licence or " OR ".join(wheel.classified)
    return SPDX.get(said, said) or "unknown"


def licence_list(wheels: Iterable[Wheel]) -> str:
    """Return a page with one line a package."""
    rows = "".join(f"| {wheel.name} | {wheel.version} | {licence(wheel)} | {wheel.home} |\n" for wheel in wheels)
    embedded = ", ".join(f"{name} ({terms})" for name, terms in EMBEDDED.items())
    return (
        "# Licences\n\n"
        "The texts are in each wheel, in its `.dist-info`.\n\n"
        f"| package | version | licence | from |\n|---|---|---|---|\n{rows}\n"
        f"Inside pywhispercpp: {embedded}.\n"
    )
