"""A Debian for arm64 in a folder: its programs run under qemu-user, on the CPU that one asks for, without a network."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv", "libstdc++6", "libasound2")
BINFMT: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""How Debian's qemu-user-static asks the kernel to run foreign programs; `F` in it: qemu is found in any root."""
NAME: Final = "qemu-aarch64"
LIMIT_S: Final = 1500.0


class RootError(Exception):
    """The root cannot be made."""


def missing() -> str | None:
    """What stands in the way on this machine; None if nothing does."""
    if os.geteuid():
        return "needs root"
    for program, package in (("debootstrap", "debootstrap"), ("qemu-aarch64-static", "qemu-user-static")):
        if not shutil.which(program):
            return f"{program} is missing: apt install {package}"
    probe = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False, capture_output=True)
    return "may make no namespaces" if probe.returncode else None


@contextmanager
def foreign_programs() -> Iterator[None]:
    """Let the kernel start arm64 programs.

    It forgets how with the last mount of its list, and older kernels with the next boot: others may be using it.

    Raises:
        RootError: the kernel does not want to.
    """
    if os.uname().machine == "aarch64":
        yield
        return
    with TemporaryDirectory() as name:
        if subprocess.run(["mount", "-t", "binfmt_misc", "none", name], check=False, capture_output=True).returncode:
            raise RootError("this kernel has no binfmt_misc, or does not let it be mounted")
        try:
            if not (Path(name) / NAME).exists():
                (Path(name) / "register").write_bytes(BINFMT.read_bytes())
            yield
        finally:
            subprocess.run(["umount", "--lazy", name], check=False)


def make_root(root: Path) -> None:
    """Fill `root` with a small Debian, once; some minutes. Wants `foreign_programs`.

    Raises:
        RootError: debootstrap failed.
    """
    if (root / "complete").exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    # In a namespace of its own, so that nothing that it mounts is left behind.
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RootError(f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    (root / "complete").touch()


def inside(
    root: Path, command: list[str], cpu: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in `root` on an emulated `cpu` (a name of qemu's), with no network but an unconnected loopback."""
    # The shell stays: the first process of a namespace is immune to the signals that others die of.
    mounts = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" || exit 1; chroot "$0" "$@"; exit $?'
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    return subprocess.run(
        [*namespaces, "sh", "-c", mounts, str(root), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "QEMU_CPU": cpu,
            **environment,
        },
    )
