#!/usr/bin/env python3
"""Activate a deployment of edgescribe on this device, and return to the former one unless it is confirmed in time.

    edgescribe-release status                print the deployment in force, in JSON
    edgescribe-release activate              activate the staged deployment and start the timer
    edgescribe-release confirm               stop the timer and keep the deployment
    edgescribe-release rollback              return to the last confirmed deployment
    edgescribe-release reset                 stage the deployment in force
    edgescribe-release revert                stage the former deployment; with --from, only if that release is in force
    edgescribe-release prune                 delete deployments, releases and models beyond --keep

A deployment is a tree of files and symbolic links, placed as below `/`: the link `current`, the settings, the unit with
its drop-ins, credentials, links to models.

`activate` is one command on the device, so a lost network cannot leave a part of it. The timer runs on the device too,
so the device returns to its former release without a connection. After a power cut during a trial, a service returns to
the former release at boot; the timer is enabled as well. This program uses the standard library only, and belongs to no
release.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STATE = Path("var/lib/edgescribe-release")
RELEASES = Path("opt/edgescribe/releases")
CURRENT = Path("opt/edgescribe/current")
MODELS = Path("var/lib/edgescribe-models/sha256")
BY_NAME = Path("var/lib/edgescribe-models/by-name")
CERTIFICATES = (Path("etc/edgescribe/ca.crt"), Path("etc/edgescribe/device.crt"))
SERVICE = "edgescribe.service"
TIMER = "edgescribe-rollback.timer"
KEEP_DEPLOYMENTS = 10  # of each release

System = Callable[..., int]
"""Run systemctl with these arguments and return its exit status."""


class ReleaseError(Exception):
    """A request is impossible; the message is one line."""


def systemctl(*arguments: str) -> int:
    """Run the real systemctl and return its exit status."""
    return subprocess.run(["systemctl", *arguments], check=False).returncode


class Device:
    """The file system below `root` and its deployments.

    <state>/next/…           the staged deployment
    <state>/pending/…        the deployment in force, if it is on trial
    <state>/history/0007/…   confirmed deployments; the highest number is, or was, in force
    <state>/trial            the name of the present trial
    <state>/last-failure     the reason of the last rollback, in JSON
    """

    def __init__(self, root: Path, system: System, keep_releases: int = 3) -> None:
        self._root = root
        self._state = root / STATE
        self._next = self._state / "next"
        self._pending = self._state / "pending"
        self._history = self._state / "history"
        self._trial = self._state / "trial"
        self._failure = self._state / "last-failure"
        self._system = system
        self._keep_releases = keep_releases

    def status(self) -> dict[str, object]:
        """Return the release in force, the confirmed ones, and the last failure."""
        return {
            "release": _release_of(self._root),
            "pending": self._pending.exists(),
            "staged_differs": self._next.exists() and self._differs(),
            "confirmed": [_release_of(tree) for tree in self._confirmed()],
            "last_failure": json.loads(self._failure.read_text(encoding="utf-8")) if self._failure.exists() else None,
        }

    def activate(self) -> dict[str, object]:
        """Activate the staged deployment. Do not change a deployment that is in force and confirmed.

        Raises:
            ReleaseError: there is no staged deployment, its release is not installed, or the timer does not start.
        """
        release = _release_of(self._next)
        if not release or not (self._root / RELEASES / release / "bin" / "edgescribe").exists():
            raise ReleaseError(f"release {release} is not installed below /{RELEASES}; the device stays as it is")
        changed = self._differs()
        if not changed and not self._pending.exists():
            return {"changed": False, "pending": False, "release": release}
        trial = os.urandom(4).hex()
        self._trial.write_text(trial, encoding="ascii")
        stale = self._owned() - set(_entries(self._next))
        _replace_tree(self._next, self._pending)
        # First the timer: it takes back every later fault. Without a timer, there is no trial.
        if self._system("enable", TIMER) or self._system("restart", TIMER):
            shutil.rmtree(self._pending)
            raise ReleaseError(f"{TIMER} does not start, and a trial needs it; the device stays as it is")
        os.sync()  # a power cut must not leave the new deployment without its timer
        self._install(self._pending, stale)
        self._start()
        return {"changed": True, "pending": True, "release": release, "trial": trial}

    def confirm(self, trial: str, back_to: str) -> dict[str, object]:
        """Confirm the deployment in force if it is on this `trial` (any trial, if that is empty).

        Raises:
            ReleaseError: no such trial: the time was over, or another deployment replaced it.
        """
        if not self._waits(trial):
            raise ReleaseError(
                "no such trial: it was taken back when its time was over, or replaced by another deployment"
            )
        confirmed = self._confirmed()
        number = int(confirmed[-1].name) + 1 if confirmed else 1
        self._history.mkdir(exist_ok=True)
        self._pending.rename(self._history / f"{number:04}")
        self._disarm()
        self._failure.unlink(missing_ok=True)
        for tree in confirmed:  # their secrets may be known to others
            for entry in [entry for entry in _entries(tree) if _is_secret(tree / entry)]:
                (tree / entry).unlink()
            if back_to and tree.name >= back_to:  # the target of `revert`, and the deployments that it left
                self._drop(tree)
        self._forget()
        os.sync()  # the confirmation must survive a power cut
        return {"changed": True, "release": _release_of(self._root)}

    def rollback(self, reason: str, trial: str) -> dict[str, object]:
        """Take the deployment on trial back, if it is on this `trial` (any trial, if that is empty)."""
        if not self._waits(trial):
            if not self._pending.exists():
                self._disarm()
            return {"changed": False, "release": _release_of(self._root)}
        target, was = next(reversed(self._confirmed()), None), _release_of(self._pending)
        if target is None:
            self._system("disable", "--now", SERVICE)
        self._install(target, self._owned() - set(_entries(target) if target else ()))
        shutil.rmtree(self._pending)
        if target is not None:
            self._start()
        self._disarm()
        self._note({"release": was, "reason": reason})
        return {"changed": True, "release": _release_of(self._root), "was": was}

    def revert(self, leaving: str) -> dict[str, object]:
        """Stage the former deployment with the current secrets and certificates; the old ones may be revoked.

        If `leaving` names a release, do so only if it is in force, and skip all of its deployments.

        Raises:
            ReleaseError: there is no earlier deployment.
        """
        confirmed, in_force = self._confirmed(), _release_of(self._root)
        if leaving not in ("", in_force):
            return {"changed": False, "release": in_force, "back_to": None}
        earlier = confirmed if self._pending.exists() else confirmed[:-1]
        for tree in reversed([tree for tree in earlier if _release_of(tree) != leaving]):
            _replace_tree(tree, self._next)
            for entry in _entries(confirmed[-1]):
                if entry in CERTIFICATES or _is_secret(confirmed[-1] / entry):
                    _copy(confirmed[-1] / entry, self._next / entry)
            if self._differs():
                return {"changed": False, "release": _release_of(tree), "back_to": tree.name}
        raise ReleaseError("there is no earlier deployment to return to")

    def reset(self) -> dict[str, object]:
        """Stage the deployment in force, so that a part of it can change.

        Raises:
            ReleaseError: there is no confirmed deployment, or a trial runs.
        """
        confirmed = self._confirmed()
        if self._pending.exists() or not confirmed:
            raise ReleaseError("there is no confirmed deployment: roll out first")
        _replace_tree(confirmed[-1], self._next)
        return {"changed": False, "release": _release_of(self._next)}

    def prune(self) -> dict[str, object]:
        """Delete old deployments, then releases and models that no deployment names."""
        self._forget()
        trees = [*self._confirmed(), self._root, *([self._pending] if self._pending.exists() else [])]
        releases = {_release_of(tree) for tree in trees}
        models = {link.readlink().name for tree in trees for link in (tree / BY_NAME).glob("*") if link.is_symlink()}
        doomed = [
            path
            for folder, needed in ((self._root / RELEASES, releases), (self._root / MODELS, models))
            for path in sorted(folder.glob("*"))
            if path.name not in needed and path.is_dir()
        ]
        for left in (RELEASES.parent / ".wheels-*", MODELS.parent / ".arriving-*", MODELS.parent / ".damaged-*"):
            doomed += sorted(self._root.glob(str(left)))  # from an interrupted play
        for path in doomed:
            shutil.rmtree(path)
        return {"changed": bool(doomed), "deleted": [path.name for path in doomed]}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the timer and the operator wait for each other."""
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._state / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _confirmed(self) -> list[Path]:
        return sorted(self._history.iterdir()) if self._history.is_dir() else []

    def _waits(self, trial: str) -> bool:
        return self._pending.exists() and (not trial or self._trial.read_text(encoding="ascii") == trial)

    def _owned(self) -> set[Path]:
        """Return the files that an earlier deployment put below `/`. Other files stay untouched."""
        trees = [*self._confirmed()[-1:], *([self._pending] if self._pending.exists() else [])]
        return {entry for tree in trees for entry in _entries(tree)}

    def _differs(self) -> bool:
        wanted = set(_entries(self._next))
        return bool(self._owned() - wanted) or not all(_same(self._next / e, self._root / e) for e in wanted)

    def _install(self, tree: Path | None, stale: set[Path]) -> None:
        """Copy `tree` to `/`, the link to the release last, and remove stale files."""
        if tree:
            for entry in sorted(_entries(tree), key=lambda entry: (entry == CURRENT, entry)):
                if not _same(tree / entry, self._root / entry):
                    _copy(tree / entry, self._root / entry)
        for entry in stale:
            (self._root / entry).unlink(missing_ok=True)
            with suppress(OSError):  # only an empty folder goes
                (self._root / entry.parent).rmdir()
        os.sync()

    def _start(self) -> None:
        """Start the service. The gate checks whether it comes up."""
        self._system("daemon-reload")
        self._system("stop", SERVICE)
        self._system("reset-failed", SERVICE)  # the count of restarts begins here
        self._system("enable", SERVICE)
        self._system("start", "--no-block", SERVICE)

    def _disarm(self) -> None:
        self._system("disable", "--now", TIMER)

    def _note(self, failure: dict[str, str | None]) -> None:
        """Store the reason. On a full disk the device goes back without a stored reason."""
        written = self._failure.with_suffix(".new")
        with suppress(OSError):
            written.write_text(json.dumps(failure), encoding="utf-8")
            written.replace(self._failure)

    def _forget(self) -> None:
        """Keep the last releases, and the last deployments of each."""
        kept: Counter[str | None] = Counter()
        for tree in reversed(self._confirmed()):
            kept[_release_of(tree)] += 1
            if len(kept) > self._keep_releases or kept[_release_of(tree)] > KEEP_DEPLOYMENTS:
                self._drop(tree)

    def _drop(self, tree: Path) -> None:
        """Delete a deployment in one step: a power cut leaves all of it or none of it."""
        doomed = self._state / ".dropped"
        shutil.rmtree(doomed, ignore_errors=True)
        tree.rename(doomed)
        shutil.rmtree(doomed)


def _release_of(tree: Path) -> str | None:
    link = tree / CURRENT
    return link.readlink().name if link.is_symlink() else None


def _entries(tree: Path) -> Iterator[Path]:
    """Files and links below `tree`, relative to it."""
    for folder, folders, files in os.walk(tree):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*files, *links):
            yield (Path(folder) / name).relative_to(tree)


def _is_secret(path: Path) -> bool:
    """Return whether only root may read this file."""
    return path.is_file() and not path.is_symlink() and not stat.S_IMODE(path.stat().st_mode) & 0o077


def _same(wanted: Path, found: Path) -> bool:
    if wanted.is_symlink() or found.is_symlink():
        return wanted.is_symlink() and found.is_symlink() and wanted.readlink() == found.readlink()
    if not found.is_file() or stat.S_IMODE(wanted.stat().st_mode) != stat.S_IMODE(found.stat().st_mode):
        return False
    return wanted.read_bytes() == found.read_bytes()


def _copy(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source` in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    if source.is_symlink():
        temporary.symlink_to(source.readlink())
    else:
        # Mode 0600 until the copy is complete: other users must never read a secret.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with source.open("rb") as original, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(original, copy)
        shutil.copystat(source, temporary)
    temporary.replace(target)


def _replace_tree(source: Path, target: Path) -> None:
    made = target.with_name(f".{target.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source, made, symlinks=True)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)


def main(arguments: list[str] | None = None, system: System = systemctl) -> int:
    """Execute the verb and print the result in JSON."""
    parser = argparse.ArgumentParser(prog="edgescribe-release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=int, default=3, metavar="N", help="releases to keep (default: %(default)s)")
    parser.add_argument("verb", choices=["status", "activate", "confirm", "rollback", "reset", "revert", "prune"])
    parser.add_argument("--from", dest="leaving", default="", metavar="RELEASE", help="revert only if this is in force")
    parser.add_argument(
        "--back-to", default="", metavar="NUMBER", help="confirm the deployment to which `revert` gave this number"
    )
    parser.add_argument(
        "--trial", default="", help="confirm, or take back, only the trial to which `activate` gave this name"
    )
    parser.add_argument("--reason", default="asked for", help="the reason, for `status`")
    args = parser.parse_args(arguments)
    device = Device(args.root, system, args.keep)
    asked = {"confirm": (args.trial, args.back_to), "rollback": (args.reason, args.trial), "revert": (args.leaving,)}
    try:
        with device.locked():
            done = getattr(device, args.verb)(*asked.get(args.verb, ()))
    except (ReleaseError, OSError) as error:
        sys.stderr.write(f"edgescribe-release: {error}\n")
        return 1
    print(json.dumps(done))  # noqa: T201 - it is a command line
    return 0


if __name__ == "__main__":
    # A closed SSH connection would end the programs of its terminal.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)  # the service's own user must read the settings, with every umask of root
    sys.exit(main())
