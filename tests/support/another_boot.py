"""A process that believes in another boot of the machine: it reads another boot id from the kernel."""

import subprocess
from pathlib import Path

import pytest

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def in_another_boot(folder: Path, name: str = "former") -> list[str]:
    """The beginning of a command line that runs the rest in the boot `name`; skips where no mount is permitted."""
    boot_id = folder / f"boot-{name}"
    boot_id.write_text(f"{name}\n", encoding="ascii")
    alone = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount --bind "{boot_id}" {_BOOT_ID} && exec "$@"',
        "sh",
    ]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file can be mounted over the kernel's boot id here")
    return alone
