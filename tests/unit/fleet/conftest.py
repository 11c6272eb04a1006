from pathlib import Path

import pytest

from tests.unit.fleet.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A bare device."""
    return Rig(tmp_path)
