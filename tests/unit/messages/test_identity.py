import ctypes
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.messages import identity


def write(path: Path, text: str) -> None:
    """Write a file of a literal tree, parents included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("raspberrypi", "raspberrypi"),
        ("Kitchen_Pi.local", "kitchen-pi"),
        ("Küche", "kuche"),
        ("--pi--5--", "pi-5"),
        ("厨房", "edgescribe"),
        ("", "edgescribe"),
        ("a" * 35 + "-bcd", "a" * 35),
    ],
)
def test_any_host_name_becomes_a_device_id(hostname: str, expected: str) -> None:
    """The id fits a topic level and the setting's pattern, whatever the host is called."""
    assert identity.slug(hostname) == expected
    assert re.fullmatch(r"[a-z0-9-]{1,36}", identity.slug(hostname))


def test_the_setting_wins_over_the_host_name() -> None:
    """Who names the device gets that name."""
    assert identity.device_id("porch-2") == "porch-2"
    assert identity.device_id(None) == identity.slug(socket.gethostname())


def test_a_raspberry_pi_is_known_by_its_device_tree(tmp_path: Path) -> None:
    """The board's name comes without the NUL byte that ends it in the device tree."""
    write(tmp_path / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write(tmp_path / "sys/class/dmi/id/product_name", "not this one\n")
    assert identity.hardware(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4"


def test_a_pc_is_known_by_its_dmi_table(tmp_path: Path) -> None:
    """Vendor and product, as far as they are given."""
    write(tmp_path / "sys/class/dmi/id/product_name", "NUC8i5BEH\n")
    assert identity.hardware(tmp_path) == "NUC8i5BEH"
    write(tmp_path / "sys/class/dmi/id/sys_vendor", "Intel(R) Client Systems\n")
    assert identity.hardware(tmp_path) == "Intel(R) Client Systems NUC8i5BEH"


def test_what_cannot_be_found_out_is_none(tmp_path: Path) -> None:
    """An empty machine raises nothing and invents nothing."""
    assert identity.hardware(tmp_path) is None
    assert identity.os_name(tmp_path) is None


def test_an_unknown_boot_is_never_taken_for_an_earlier_one(tmp_path: Path) -> None:
    """A message that was stored before a power cut must not count as a message of this boot."""
    script = (
        "import sys, pathlib; from agent.messages import identity; print(identity.boot_id(pathlib.Path(sys.argv[1])))"
    )
    other = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert identity.boot_id(tmp_path) == identity.boot_id(tmp_path) != other.stdout.strip()


@pytest.mark.parametrize(
    "line", ['PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', "PRETTY_NAME='Debian GNU/Linux 12 (bookworm)'"]
)
def test_the_distribution_is_named_as_it_names_itself(tmp_path: Path, line: str) -> None:
    """os-release(5) allows both kinds of quotes."""
    write(tmp_path / "etc/os-release", f"ID=debian\n{line}\n")
    assert identity.os_name(tmp_path) == "Debian GNU/Linux 12 (bookworm)"


def test_this_machine_can_be_described() -> None:
    """On a real Linux, the boot id is the kernel's and stays the same."""
    machine = identity.describe()
    assert re.fullmatch(r"[0-9a-f-]{36}", machine.boot_id)
    assert machine == identity.describe()


def test_asking_for_the_clock_changes_nothing_and_answers() -> None:
    """The answer is a plain yes or no on any machine, without privileges."""
    assert identity.time_synced() in {True, False}


def test_without_the_kernel_systemd_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sandbox forbids adjtimex, timesyncd's marker file decides."""

    class Forbidden:
        """A C library whose adjtimex is forbidden by seccomp."""

        def adjtimex(self, _timex: object) -> int:
            """Fail as with EPERM."""
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: Forbidden())
    assert identity.time_synced(tmp_path) is False
    write(tmp_path / "run/systemd/timesync/synchronized", "")
    assert identity.time_synced(tmp_path) is True
