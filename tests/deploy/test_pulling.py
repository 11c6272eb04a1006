"""What the unit that pulls does around `ansible-pull`: its commands as they stand, on checkouts of a real git."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.signing import SIGNER, make_key
from tests.deploy.test_timers import text_of

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("git", "gpg", "gpg-agent"))),
    reason="git, gpg or gpg-agent is missing: apt install git gpg gpg-agent",
)


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    """GnuPG's home with a key; its path is short, since there is a socket in it."""
    with tempfile.TemporaryDirectory() as folder:
        make_key(Path(folder))
        yield Path(folder)
        subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=False)


@dataclass(frozen=True, slots=True)
class Pulling:
    """What a device has of its pulling."""

    folder: Path
    """In the place of /var/lib."""
    keys: Path

    @property
    def checkout(self) -> Path:
        """What the last run has fetched, and the next one reads."""
        return self.folder / "edgescribe-pull"

    def git(self, *arguments: str) -> None:
        """As the writer and as the device, which have one key here."""
        who = ("-c", "user.name=Fleet", "-c", f"user.email={SIGNER}", "-c", f"user.signingKey={SIGNER}")
        self._run("git", "-C", str(self.checkout), *who, *arguments)

    def commit(self, text: str, *, signed: bool = True) -> None:
        """What the last run has fetched."""
        (self.checkout / "inventory.yml").write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--gpg-sign" if signed else "--no-gpg-sign", "--message=Ask for it")

    def at(self, time_s: int, name: str) -> None:
        """A file that was last written then."""
        file = self.folder / f"edgescribe-{name}"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time_s, time_s))

    def run(self, key: str) -> None:
        """All commands of the unit of this kind, for the folder in the place of /var/lib."""
        commands = re.findall(
            rf"^{key}=/bin/sh -c '(.+)'$", text_of("edgescribe-pull.service", self.folder), re.MULTILINE
        )
        assert commands
        for command in commands:
            self._run("sh", "-c", command.replace("/var/lib", str(self.folder)))

    def _run(self, *command: str) -> None:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.keys), "GNUPGHOME": str(self.keys)}
        subprocess.run(command, env=environment, check=True)


@pytest.fixture
def pulling(tmp_path: Path, keys: Path) -> Pulling:
    """A device that has fetched a signed commit."""
    made = Pulling(tmp_path, keys)
    made.checkout.mkdir()
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit("all: {}")
    return made


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (["pull/.git/index", "release/last-failure"], True),  # the run before came to its end
        (["pull.unfinished", "pull/.git/index", "release/last-failure"], True),  # its release was taken back
        (["pull.unfinished", "release/last-failure", "pull/.git/index"], False),  # the one before that was
        (["pull.unfinished", "pull/.git/index"], False),  # the mirror was away, or the power
    ],
)
def test_a_commit_that_never_got_as_far_as_a_trial_is_tried_again(
    files: list[str], *, left: bool, pulling: Pulling
) -> None:
    """A mirror that is down for an hour must not cost the commit; a release that was taken back waits for the next."""
    for time_s, name in enumerate(files):  # in the order in which they were written
        pulling.at(time_s, name)
    pulling.run("ExecStartPre")
    assert pulling.checkout.exists() is left
    assert (pulling.folder / "edgescribe-pull.unfinished").exists()


def test_what_was_taken_back_is_not_tried_again_for_want_of_news(pulling: Pulling) -> None:
    """A run without news, one without network, one more: the release that failed gets no second trial of it."""
    pulling.at(1, "pull/.git/index")
    pulling.at(2, "release/last-failure")
    pulling.run("ExecStartPre")
    pulling.git("reset", "--quiet", "--hard")  # as the git module does without news
    pulling.run("ExecStartPost")
    assert not (pulling.folder / "edgescribe-pull.unfinished").exists()
    pulling.run("ExecStartPre")  # and then git cannot be reached
    pulling.run("ExecStartPre")
    assert pulling.checkout.exists()


def test_what_nobody_has_signed_is_not_even_read(pulling: Pulling) -> None:
    """Git puts it in place before it refuses it; an inventory, which can run programs, is read before that."""
    pulling.commit("all: {hosts: {evil: }}", signed=False)
    pulling.at(1, "pull.unfinished")
    pulling.at(2, "pull/.git/index")
    pulling.at(3, "release/last-failure")  # of a release that somebody has pushed meanwhile
    pulling.run("ExecStartPre")
    assert not pulling.checkout.exists()


def test_nothing_lies_beside_what_was_signed(pulling: Pulling) -> None:
    """Git was cut off while it put another commit in place: its files are there, and the signed one still counts."""
    (pulling.checkout / "evil.yml").touch()
    pulling.run("ExecStartPre")
    assert [path.name for path in pulling.checkout.iterdir()] == [".git", "inventory.yml"]
    (pulling.folder / "edgescribe-pull.unfinished").unlink()
    (pulling.checkout / "inventory.yml").write_text("all: {hosts: {evil: }}", encoding="utf-8")
    pulling.run("ExecStartPre")
    assert not pulling.checkout.exists()


def test_the_vault_is_open_before_the_inventory_is_read(tmp_path: Path) -> None:
    """`ansible-pull` hands its option to the playbook only; the step that fetches reads the same inventory."""
    assert "vault" not in text_of("edgescribe-pull.service", tmp_path)
    text = text_of("edgescribe-pull.service", tmp_path, edgescribe_pull_vault_password="secret")
    assert "Environment=ANSIBLE_VAULT_PASSWORD_FILE=/etc/edgescribe-pull/vault-password" in text
    assert "--vault-password-file" not in text
    assert "secret" not in text
