import ast
from pathlib import Path
from typing import Final

import agent

PACKAGE: Final = Path(agent.__file__).parent
ORDER: Final = (
    *("errors", "log", "systemd", "worker", "channel", "install.extras", "audio.frames", "asr.transcript"),
    *("config", "messages", "audio", "models", "vad", "segmenter", "asr", "telemetry", "governor", "mqtt"),
    *("wyoming", "terminal", "bench", "calibrate", "app", "install", "diagnostics", "commands", "cli", "__main__"),
)
"""A module imports from its own package, and from what stands before it."""
APART: Final = ("audio", "models", "vad")
"""These do not import each other."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name behind `agent.`."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        *folders, name = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(folders if name == "__init__" else [*folders, name])] = path
    return names


MODULES: Final = modules()


def imports(path: Path) -> set[str]:
    """The modules of this package that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}".removeprefix("agent.") for alias in node.names}
            found |= {f"agent.{name}" for name in inner & MODULES.keys()} or {node.module}
    return {name.removeprefix("agent.") for name in found} & MODULES.keys()


def place(module: str) -> str:
    """The entry of `ORDER` to which a module belongs."""
    return max((entry for entry in ORDER if f"{module}.".startswith(f"{entry}.")), key=len)


def test_imports_run_in_one_order() -> None:
    """A module imports only from the entries of `ORDER` before its own."""
    offences = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module
        for name in imports(path)
        if ORDER.index(place(name)) > ORDER.index(place(module)) and name.split(".")[0] != module.split(".")[0]
    ]
    assert offences == []


def test_stages_do_not_know_each_other() -> None:
    """Sources, models and detectors share the types of `audio.frames`, and nothing else."""
    offences = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module and place(module) in APART
        for name in imports(path)
        if place(name) in APART and place(name) != place(module)
    ]
    assert offences == []
