"""A host with a real systemd as PID 1, in namespaces of this machine, with this working tree installed in it."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.conftest import REPOSITORY

CACHE: Final = REPOSITORY / ".edgescribe" / "systemd-host"
"""What is kept for the next time, and where hosts have their files."""
BOOT: Final = Path(__file__).with_name("boot")
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "python3", "libasound2", "procps"),
    *("openssh-server", "python3-venv", "libgomp1", "ca-certificates", "git", "gpg", "gpg-agent"),  # for the fleet
)
SUITE: Final = "bookworm"
LIMIT_S: Final = 60.0
INSTALLED: Final = Path("opt/edgescribe/current")
PYTHON: Final = "3.11"
"""Of the suite; what the tests run with has to be the same, since the host borrows its packages."""


class RigError(Exception):
    """The host cannot be built, booted, or does not do as it is told."""


def missing() -> str | None:
    """What stands in the way of a host on this machine; None if nothing does."""
    if os.geteuid():
        return "needs root"
    if not shutil.which("debootstrap"):
        return "debootstrap is missing: apt install debootstrap"
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        return f"the host has Python {PYTHON}, and cannot borrow the packages of another"
    unshare = ("unshare", "--mount", "--pid", "--fork")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        return "may make no namespaces"
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:  # where hosts have their files: no overlay lies on another
        for part in ("lower", "upper", "work", "root"):
            (Path(folder) / part).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = [*unshare, "mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/root"]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            return f"no overlay can be mounted on {CACHE}"
    return None


def make_base(base: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Fill `base` with a small Debian that has `packages`, once.

    Raises:
        RigError: debootstrap failed.
    """
    wanted = ",".join(packages)
    complete = base / "complete"
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(base, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={wanted}", SUITE, str(base)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RigError(f"debootstrap failed: {result.stdout[-2000:]}{result.stderr[-2000:]}")
    complete.write_text(wanted, encoding="utf-8")


def borrow(packages: Path, site_packages: Path) -> None:
    """Have the packages that the tests run with in the folder `packages` of a host, too."""
    packages.parent.mkdir(parents=True)
    # Links take no room; across file systems they cannot be had.
    if subprocess.run(["cp", "-al", str(site_packages), str(packages)], check=False, capture_output=True).returncode:
        shutil.rmtree(packages, ignore_errors=True)
        shutil.copytree(site_packages, packages, symlinks=True)


def install(layer: Path, repository: Path, site_packages: Path) -> None:
    """Put this working tree and the packages that the tests run with below `layer`/opt/edgescribe/current."""
    target = layer / INSTALLED
    packages = target / "lib" / f"python{PYTHON}" / "site-packages"
    borrow(packages, site_packages)
    shutil.rmtree(packages / "agent", ignore_errors=True)  # what an editable installation leaves there
    shutil.copytree(repository / "agent", packages / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "models" / "manifest.toml", packages / "agent" / "models")
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", encoding="utf-8")
    (target / "bin").mkdir()
    (target / "bin" / "python").symlink_to("/usr/bin/python3")
    program = target / "bin" / "edgescribe"
    program.write_text(
        "#!/opt/edgescribe/current/bin/python\nimport sys\nfrom agent.__main__ import main\nsys.exit(main())\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    unit = layer / "etc/systemd/system/edgescribe.service"
    unit.parent.mkdir(parents=True)
    shutil.copy(repository / "systemd" / "edgescribe.service", unit)


class SystemdHost:
    """One host: its files are an overlay over `lower` (uppermost first) in `folder`; a command may take `limit_s`."""

    def __init__(self, folder: Path, name: str, *lower: Path, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self.root = folder / "root"
        """Its root file system, as seen from outside."""
        self.since = ""
        """Where the journal of the present test begins, see `cursor`."""
        self._name = name
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        self._log = folder / "boot.log"
        self._boot: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Start it, and wait until systemd has finished.

        Raises:
            RigError: it does not come up.
        """
        with self._log.open("wb") as log:
            self._boot = subprocess.Popen([str(BOOT), str(self.root), self._name], stdout=log, stderr=log)
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s and self._boot.poll() is None:
            self._init = self._find_init()
            state = self.ask("systemctl", "is-system-running").strip() if self._init else ""
            if state in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise RigError(f"{self._name} did not boot: {self._log.read_text(errors='replace')[-2000:]}")

    @property
    def init_pid(self) -> int:
        """Its systemd, as this machine sees it."""
        return self._init

    def ask(self, *command: str) -> str:
        """What a command in the host prints, whatever its exit status."""
        return self._inside(*command).stdout

    def do(self, *command: str) -> str:
        """What a command in the host prints; raises RigError if it fails."""
        result = self._inside(*command)
        if result.returncode:
            raise RigError(f"{' '.join(command)}: {result.stdout}{result.stderr}\n{self.journal()[-4000:]}")
        return result.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file of the host that everybody may read."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def property(self, name: str) -> str:
        """A property of the service."""
        return self.ask("systemctl", "show", "edgescribe", "--value", f"--property={name}").strip()

    def main_pid(self) -> psutil.Process | None:
        """The service's main process, as this machine sees it; None if it does not run."""
        inside = self.property("MainPID")
        for process in psutil.Process(self._init).children(recursive=True) if inside.isdecimal() else ():
            with contextlib.suppress(OSError, psutil.Error):
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
                if f"\nNSpid:\t{process.pid}\t{inside}\n" in status:
                    return process
        return None

    def journal(self, since: str = "") -> str:
        """What the service has said since `since`, a cursor from `cursor`, or since `self.since`."""
        cursor = since or self.since
        after = ("--after-cursor", cursor) if cursor else ()
        return self.ask("journalctl", "--unit=edgescribe", "--output=cat", "--no-pager", *after)

    def cursor(self) -> str:
        """The present end of the journal."""
        self.ask("journalctl", "--sync")
        lines = self.ask("journalctl", "--lines=1", "--show-cursor", "--no-pager").splitlines()
        return next((line.removeprefix("-- cursor: ") for line in lines if line.startswith("-- cursor: ")), "")

    def cut(self) -> None:
        """Pull the plug: nobody gets to say goodbye. It can be booted again. Idempotent."""
        if self._boot:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._init).kill()  # PID 1 takes everybody with it
            self._boot.kill()
            self._boot.wait()
            self._boot = None
        self._remove_cgroups()

    def halt(self) -> None:
        """Pull the plug, and take its files off; idempotent."""
        self.cut()
        subprocess.run(["umount", "-l", str(self.root)], check=False, capture_output=True)

    def _remove_cgroups(self) -> None:
        """Take away what `boot` made, as soon as the last process in it is gone."""
        root = Path("/sys/fs/cgroup")
        deadline_s = time.monotonic() + 10.0
        while folders := [*root.glob(self._name), *root.glob(f"*/{self._name}")]:
            for below in sorted((below for folder in folders for below in folder.glob("**/")), reverse=True):
                with contextlib.suppress(OSError):
                    below.rmdir()
            if time.monotonic() > deadline_s:
                return
            time.sleep(0.05)

    def _inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--all", f"--target={self._init}", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        try:
            return subprocess.run(
                [*enter, *command], capture_output=True, text=True, check=False, timeout=self._limit_s
            )
        except subprocess.TimeoutExpired as error:
            raise RigError(f"{' '.join(command)} took more than {self._limit_s:.0f} s") from error

    def _find_init(self) -> int:
        if not self._boot:
            return 0
        with contextlib.suppress(psutil.NoSuchProcess):
            # sh becomes unshare, which has one child: sh, and then systemd.
            for process in psutil.Process(self._boot.pid).children():
                if process.name() == "systemd":
                    return process.pid
        return 0


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RigError(f"{' '.join(command)}: {result.stderr.strip()}")
