import ast
import sys
from pathlib import Path

import agent

PACKAGE = Path(agent.__file__).parent
STAGES = ("sources", "vad", "engines", "models", "sinks", "outbox", "telemetry")
BOTTOM = ("audio", "transcript", "channel", "errors")
BOTTOM_MAY_IMPORT = {"numpy", "__future__"}


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, wherever in the module the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_below(folder: str) -> list[Path]:
    """All modules of one stage."""
    return sorted((PACKAGE / folder).rglob("*.py"))


def test_sibling_stages_do_not_know_each_other() -> None:
    """Only the composition root sees all stages: `sources` never imports `engines`, and so on."""
    offences = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for stage in STAGES
        for path in modules_below(stage)
        for name in imports(path)
        for other in STAGES
        if other != stage and (name == f"agent.{other}" or name.startswith(f"agent.{other}."))
    ]
    assert offences == []


def test_nothing_below_imports_the_composition_root_or_the_command_line() -> None:
    """Imports run downward only."""
    offences = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "commands" and path.name not in {"cli.py", "__main__.py"}
        for name in imports(path)
        if name.startswith(("agent.cli", "agent.commands")) or (name.startswith("agent.app") and path.name != "app.py")
    ]
    assert offences == []


def test_the_bottom_layer_needs_nothing_but_numpy() -> None:
    """Types, channel and errors import the standard library, numpy, and each other."""
    offences = [
        f"{module}.py imports {name}"
        for module in BOTTOM
        for name in imports(PACKAGE / f"{module}.py")
        if (root := name.split(".")[0]) not in sys.stdlib_module_names
        and root not in BOTTOM_MAY_IMPORT
        and not name.startswith(tuple(f"agent.{bottom}" for bottom in BOTTOM))
    ]
    assert offences == []


def test_no_file_has_outgrown_the_house() -> None:
    """Files stay under 350 lines, so that each can be read in one go."""
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
