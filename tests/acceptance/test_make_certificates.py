import subprocess
from pathlib import Path

import pytest

from tests.support.shipped_broker import SHIPPED


@pytest.mark.parametrize("name", ["_group", "+", "#", "Küche", "a/b", "operator", "x" * 37])
def test_the_script_makes_no_device_whose_name_means_something_else(tmp_path: Path, name: str) -> None:
    """A certificate called `_group` or `operator` would have another's rights in the access control list."""
    script = str(SHIPPED / "make-certificates")
    subprocess.run([script, str(tmp_path), "ca"], check=True, capture_output=True)
    done = subprocess.run([script, str(tmp_path), "device", name], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert name in done.stderr
    assert not list(tmp_path.glob("*/*.pem"))


def test_the_script_keeps_keys_to_their_owner_and_never_replaces_the_authority(tmp_path: Path) -> None:
    """Keys are for their owner only; a second authority would disown every device."""
    script = str(SHIPPED / "make-certificates")
    for arguments in (("ca",), ("device", "pi-1")):
        subprocess.run([script, str(tmp_path), *arguments], check=True, capture_output=True)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("*.key")} == {0}
    authority = (tmp_path / "ca.crt").read_bytes()
    again = subprocess.run([script, str(tmp_path), "ca"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (tmp_path / "ca.crt").read_bytes() == authority
