#!/usr/bin/env python3
"""Fetch the state of this device from git, and apply it if a trusted key has signed it.

    edgescribe-pull

The unit edgescribe-pull.service runs it; /etc/edgescribe-pull/config.json has the address. It fetches and verifies a
commit before it installs a file of it. It refuses two kinds of commits: those without a signature by a valid key of
/etc/edgescribe-pull/gnupg, and those that do not descend from the commit in force. Without the second rule, an attacker
with access to the repository could bring back an old release, which was signed as well. A refused commit only changes
the code in `health`.

This program uses the standard library only, and belongs to no release.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

UNTRUSTED = "pull_untrusted"
"""In `health`: no trusted key has signed the newest commit."""
REWOUND = "pull_rewound"
"""In `health`: the newest commit does not descend from the one in force."""
TIP = "refs/edgescribe/tip"
_REASONS = {
    "EXPKEYSIG": "its key {} has expired",
    "EXPSIG": "its signature by {} has expired",
    "REVKEYSIG": "its key {} was revoked",
    "BADSIG": "its signature by {} is wrong",
    "NO_PUBKEY": "its key {} is not among edgescribe_pull_keys",
}
"""Words of GnuPG's status lines (doc/DETAILS of its sources), the most useful first."""

_LOOK_BACK = 100
"""The most commits that one run verifies."""

Play = Callable[[list[str], Path, dict[str, str]], int]
"""Run a command in a folder with an environment, and return its exit status."""


class PullError(Exception):
    """The state of the device stays as it is; the message is one line."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """The code in `health`, or an empty string."""


@dataclass(frozen=True)
class Config:
    """The configuration that the role has written."""

    url: str
    branch: str
    inventory: str
    playbook: str
    host: str
    """The name of the device in the inventory."""
    program: str
    """ansible-playbook."""
    accept: str = ""
    """The full id of a commit that may come into force once without descending from the one in force."""


@dataclass(frozen=True)
class State:
    """The results of earlier runs."""

    in_force: str = ""
    """The last commit that was played to its end; empty if none was."""
    tried: str = ""
    """The last commit that was played, to its end or not."""
    failure_ns: int | None = None
    """When the release was last taken back, as of the beginning of that."""
    accepted: str = ""
    """The last commit that came into force because it was asked for by name."""


def run_playbook(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run the real playbook. Its output goes to the journal."""
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


class Puller:
    """The device below `root`.

    etc/edgescribe-pull/…           config.json, gnupg, vault-password
    var/lib/edgescribe-pull/        the repository, with the commit that was played last
    var/lib/edgescribe-pull.json    the results of earlier runs; it stays if the repository is deleted
    var/lib/edgescribe-pull.health  the code for `health`
    """

    def __init__(self, root: Path, play: Play = run_playbook) -> None:
        self._etc = root / "etc/edgescribe-pull"
        self._repository = root / "var/lib/edgescribe-pull"
        self._state_file = root / "var/lib/edgescribe-pull.json"
        self._health_file = root / "var/lib/edgescribe-pull.health"
        self._failure_file = root / "var/lib/edgescribe-release/last-failure"
        self._play = play
        self._config = Config(**json.loads((self._etc / "config.json").read_text(encoding="utf-8")))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let only one process run."""
        with (self._etc / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def pull(self) -> str:
        """Fetch the newest commit and apply it; return the result in one line.

        Raises:
            PullError: the fetch failed, the newest commit is refused, or the playbook failed.
        """
        state = self._read_state()
        tip = self._fetch()
        commit, refusal = self._newest_trusted(tip, state)
        self.say(refusal.code if refusal else "")
        done = self._take(commit, state) if commit else ""
        if refusal:
            raise refusal
        return done

    def say(self, code: str) -> None:
        """Show `code` in the agent's `health`, or no code if it is empty."""
        if not code:
            self._health_file.unlink(missing_ok=True)
        else:
            self._write(self._health_file, f"{code}\n", 0o644)

    def _take(self, commit: str, state: State) -> str:
        """Apply `commit`, unless it is in force or has finally failed."""
        if commit == state.tried == state.in_force:
            return f"no news: {commit} is in force"
        if commit == state.tried and self._failure_ns() not in (None, state.failure_ns):
            return f"no news: {commit} was tried and taken back"
        self._check_out(commit)
        self._bring_about(commit, state)
        return f"{commit} is in force"

    # Git. A commit is verified before its files reach the work tree.

    def _fetch(self) -> str:
        """Fetch the branch with all of its history; return the id of its newest commit."""
        self._prepare()
        url, secrets = without_credentials(self._config.url)
        fetched = self._git("fetch", "--quiet", "--no-tags", url, f"+{self._config.branch}:{TIP}", further=secrets)
        if fetched.returncode:
            if self._git("fsck", "--connectivity-only").returncode:
                shutil.rmtree(self._repository)  # a power cut has damaged it; the next run fetches all of it
            raise PullError(f"cannot fetch {self._config.branch} of {url}: {_last_line(fetched.stderr)}")
        return self._git("rev-parse", f"{TIP}^{{commit}}").stdout.strip()

    def _prepare(self) -> None:
        """Make the repository, or let go of what a power cut has left locked in it."""
        if self._git("rev-parse", "--git-dir").stdout.strip() != ".git":
            shutil.rmtree(self._repository, ignore_errors=True)
            self._repository.mkdir(mode=0o700, parents=True)
            self._git("init", "--quiet")
        for lock in (self._repository / ".git").rglob("*.lock"):
            lock.unlink()

    def _newest_trusted(self, tip: str, state: State) -> tuple[str, PullError | None]:
        """The commit to take, empty if there is none; and why it is not `tip`.

        Where the tip is not trusted, an earlier commit may be: a device that was away while keys were rotated first
        takes the commit that brings it the new key.
        """
        try:
            self._verify(tip)
            self._refuse_rewound(tip, state)
        except PullError as refusal:
            if refusal.code != UNTRUSTED or not state.in_force:
                return "", refusal
            since = f"{state.in_force}..{tip}"
            listed = self._git("rev-list", "--first-parent", "--ancestry-path", f"--max-count={_LOOK_BACK}", since)
            earlier = listed.stdout.split() if listed.returncode == 0 else []
            return next((commit for commit in earlier if self._is_trusted(commit)), ""), refusal
        return tip, None

    def _is_trusted(self, commit: str) -> bool:
        return self._git("verify-commit", commit).returncode == 0

    def _verify(self, commit: str) -> None:
        verified = self._git("verify-commit", "--raw", commit)
        if verified.returncode == 0:
            return
        for word, reason in _REASONS.items():
            if found := re.search(rf"^\[GNUPG:\] {word} (\S+)", verified.stderr, re.MULTILINE):
                raise PullError(f"{commit} is refused: {reason.format(found[1])}", UNTRUSTED)
        raise PullError(f"{commit} is refused: it is not signed, or gpg cannot tell", UNTRUSTED)

    def _refuse_rewound(self, commit: str, state: State) -> None:
        asked_for = commit == self._config.accept != state.accepted
        if not state.in_force or asked_for:
            return
        if self._git("merge-base", "--is-ancestor", state.in_force, commit).returncode:
            raise PullError(
                f"{commit} is refused: it does not descend from {state.in_force}, which is in force; "
                "if that is wanted, set edgescribe_pull_accept to its full id",
                REWOUND,
            )

    def _check_out(self, commit: str) -> None:
        """Check this commit out and remove all other files."""
        for command in (("checkout", "--quiet", "--force", "--detach", commit), ("clean", "-ffdxq")):
            done = self._git(*command)
            if done.returncode:
                raise PullError(f"cannot check out {commit}: {_last_line(done.stderr)}")

    def _git(self, *arguments: str, further: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "GNUPGHOME": str(self._etc / "gnupg"),
            "GIT_DIR": ".git",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new",
            **(further or {}),
        }
        folder = self._repository if self._repository.is_dir() else self._etc
        command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)

    # Ansible.

    def _bring_about(self, commit: str, state: State) -> None:
        accepted = commit if commit == self._config.accept else state.accepted
        tried = State(state.in_force, commit, self._failure_ns(), state.accepted)
        self._write(self._state_file, json.dumps(asdict(tried)), 0o600)
        command = [self._config.program, "--connection=local", f"--inventory={self._config.inventory}"]
        command += [f"--limit={self._config.host}", self._config.playbook]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        vault_password = self._etc / "vault-password"
        if vault_password.exists():
            environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(vault_password)
        status = self._play(command, self._repository, environment)
        if status:
            raise PullError(f"the playbook failed with status {status}; {commit} is not in force")
        if self._etc.is_dir():  # else the device was told to pull no longer
            self._write(self._state_file, json.dumps(asdict(State(commit, commit, None, accepted))), 0o600)

    # Files.

    def _read_state(self) -> State:
        try:
            return State(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError) as error:
            raise PullError(
                f"{self._state_file} is damaged, so the commit in force is not known; delete it to start anew", REWOUND
            ) from error

    def _failure_ns(self) -> int | None:
        with suppress(FileNotFoundError):
            return self._failure_file.stat().st_mtime_ns
        return None

    @staticmethod
    def _write(path: Path, text: str, mode: int) -> None:
        """Write the file whole or not at all."""
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """`url` without user and password, and the environment by which git gets them for this server.

    An address stands in the arguments of git's helpers, which everybody can read in /proc; an environment is its
    owner's alone. SSH goes by root's own keys, and needs the user in the address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return url, {}
    user, _, server = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    bare = urlunsplit(parts._replace(netloc=server))
    tell = 'test "$1" = get && printf "username=%s\\npassword=%s\\n" "$FLEET_USER" "$FLEET_PASSWORD"'
    return bare, {
        "FLEET_USER": unquote(name),
        "FLEET_PASSWORD": unquote(password),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"credential.{parts.scheme}://{server}.helper",
        "GIT_CONFIG_VALUE_0": f"!f() {{ {tell}; }}; f",
    }


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["git gives no reason"])[-1]


def main(arguments: list[str] | None = None, play: Play = run_playbook) -> int:
    """Pull, and print what came of it."""
    parser = argparse.ArgumentParser(prog="edgescribe-pull", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    root: Any = parser.parse_args(arguments).root
    try:
        puller = Puller(root, play)
        with puller.locked():
            try:
                print(puller.pull(), flush=True)  # noqa: T201 - it is a command line
            except PullError as error:
                if error.code:
                    puller.say(error.code)
                raise
    except (PullError, OSError, ValueError, TypeError) as error:
        sys.stderr.write(f"edgescribe-pull: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o022)  # the service reads the settings as another user
    sys.exit(main())
