import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import layers
from agent.config.layers import load_settings
from agent.errors import ConfigError

WriteToml = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's environment nor its /etc has a say in these tests."""
    for name in [name for name in os.environ if name.upper().startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(layers, "DEFAULT_FILE", tmp_path / "etc" / "config.toml")


@pytest.fixture
def toml(tmp_path: Path) -> WriteToml:
    """Writes a configuration file, readable by its owner only, and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write


def problems(config: Path | None = None, overrides: dict[str, object] | None = None) -> list[str]:
    """The lines of the error that loading must raise."""
    with pytest.raises(ConfigError) as caught:
        load_settings(config, overrides)
    return str(caught.value).splitlines()
