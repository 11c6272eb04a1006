"""What a device that pulls takes from git and what it refuses: `edgescribe-pull` with a real git and a real GnuPG."""

import base64
import functools
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.deploy.signing import SIGNER, make_key, public_keys
from tests.deploy.test_timers import ROLE, text_of

PROGRAM = REPOSITORY / "ansible/roles/agent/files/edgescribe_pull.py"
NEXT_SIGNER = "next@example.org"
EXPIRED_SIGNER = "expired@example.org"
STRANGER = "stranger@example.org"
LONG_AGO = ("--faked-system-time", "20200101T120000!")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("git", "gpg", "gpg-agent"))),
    reason="git, gpg or gpg-agent is missing: apt install git gpg gpg-agent",
)


def load() -> Any:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("edgescribe_pull", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


edgescribe_pull = load()


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    """GnuPG's home of the writers; its path is short, since there is a socket in it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for signer in (SIGNER, NEXT_SIGNER, STRANGER):
            make_key(home, signer)
        make_key(home, EXPIRED_SIGNER, *LONG_AGO, expires="1d")
        clock = home / "long-ago/gpg"
        clock.parent.mkdir()
        clock.write_text(f'#!/bin/sh\nexec {shutil.which("gpg")} {" ".join(LONG_AGO)} "$@"\n', encoding="utf-8")
        clock.chmod(0o755)
        yield home
        subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=False)


@dataclass(slots=True)
class Fleet:
    """A repository and a device that pulls from it. Ansible is a list of what was played."""

    folder: Path
    keys: Path
    """GnuPG's home of the writers."""
    plays: list[str] = field(default_factory=list)
    """The inventory of each play."""
    status: int = 0
    """What Ansible ends with."""
    takes_back: bool = False
    """Whether the release is taken back in the play."""

    @property
    def root(self) -> Path:
        """The file system of the device."""
        return self.folder / "device"

    @property
    def remote(self) -> Path:
        """The repository that the operators write to."""
        return self.folder / "fleet"

    @property
    def inventory(self) -> str:
        """What lies on the device."""
        return (self.root / "var/lib/edgescribe-pull/inventory.yml").read_text(encoding="utf-8")

    @property
    def health(self) -> str:
        """What the agent will say."""
        path = self.root / "var/lib/edgescribe-pull.health"
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def configure(self, **changes: str) -> None:
        """What the role does."""
        config = {
            "url": f"file://{self.remote}",
            "branch": "main",
            "inventory": "inventory.yml",
            "playbook": "pull.yml",
            "host": "kitchen",
            "program": "/usr/bin/ansible-playbook",
            "accept": "",
        }
        (self.root / "etc/edgescribe-pull/config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    def trust(self, *signers: str) -> None:
        """Bring these keys to the device and no others, as the role does."""
        etc = self.root / "etc/edgescribe-pull"
        (etc / "keys.asc").write_text(public_keys(self.keys, *signers), encoding="utf-8")
        self.run_shell("Trust these keys and no others", check=True)

    def run_shell(self, name: str, *, check: bool) -> None:
        """Run the shell commands of this task of the role."""
        tasks = yaml.safe_load((ROLE / "tasks/pull.yml").read_text(encoding="utf-8"))
        (task,) = (task for task in tasks if task["name"] == name)
        script = task["ansible.builtin.shell"]["cmd"]
        subprocess.run(["sh", "-c", script], cwd=self.root / "etc/edgescribe-pull", check=check)

    def git(self, *arguments: str, signer: str = SIGNER) -> str:
        """Git as a writer."""
        program = self.keys / "long-ago/gpg" if signer == EXPIRED_SIGNER else "gpg"
        who = [f"user.name={signer}", f"user.email={signer}", f"user.signingKey={signer}", f"gpg.program={program}"]
        options = [word for setting in who for word in ("-c", setting)]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.keys), "GNUPGHOME": str(self.keys)}
        command = ["git", "-C", str(self.remote), *options, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str, signer: str | None = SIGNER) -> str:
        """Ask for another state; return the id of the commit."""
        (self.remote / "inventory.yml").write_text(text, encoding="utf-8")
        self.git("add", "--all")
        sign = "--gpg-sign" if signer else "--no-gpg-sign"
        self.git("commit", "--quiet", "--allow-empty", sign, f"--message={text}", signer=signer or SIGNER)
        return self.git("rev-parse", "HEAD")

    def pull(self) -> int:
        """One run of the unit; its exit status."""
        return int(edgescribe_pull.main(["--root", str(self.root)], self._play))

    def _play(self, command: list[str], folder: Path, environment: dict[str, str]) -> int:
        assert command[0] == "/usr/bin/ansible-playbook"
        assert "--limit=kitchen" in command
        assert environment["LC_ALL"] == "C.UTF-8"
        self.plays.append((folder / "inventory.yml").read_text(encoding="utf-8"))
        if self.takes_back:
            failure = self.root / "var/lib/edgescribe-release/last-failure"
            failure.parent.mkdir(exist_ok=True)
            failure.write_text(f"{len(self.plays)}", encoding="utf-8")
        return self.status


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short, since GnuPG puts sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def fleet(short: Path, keys: Path) -> Fleet:
    """A device that has brought about a first commit."""
    made = Fleet(short, keys)
    for folder in ("etc/edgescribe-pull", "var/lib"):
        (made.root / folder).mkdir(parents=True)
    made.remote.mkdir()
    made.git("init", "--quiet", "--initial-branch=main")
    made.configure()
    made.trust(SIGNER)
    made.commit("first")
    assert made.pull() == 0
    assert made.plays == ["first"]
    return made


def test_each_signed_commit_is_brought_about_once(fleet: Fleet) -> None:
    """A run without news plays nothing."""
    assert fleet.pull() == 0
    fleet.commit("second")
    assert [fleet.pull(), fleet.pull()] == [0, 0]
    assert fleet.plays == ["first", "second"]
    assert fleet.health == ""


@pytest.mark.parametrize("signer", [None, STRANGER, EXPIRED_SIGNER])
def test_what_no_trusted_key_vouches_for_changes_nothing(fleet: Fleet, signer: str | None) -> None:
    """Unsigned, of a key that is missing, of one that has expired: not even its files are put in place."""
    fleet.trust(SIGNER, EXPIRED_SIGNER)
    fleet.commit("evil", signer)
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.inventory, fleet.health) == (["first"], "first", "pull_untrusted")
    fleet.commit("second")
    assert fleet.pull() == 0
    assert (fleet.plays, fleet.inventory, fleet.health) == (["first", "second"], "second", "")


@pytest.mark.parametrize("left", ["other", "none", "no folder"])
def test_a_key_that_is_gone_leaves_the_device_as_it_is(fleet: Fleet, left: str) -> None:
    """`health` says so without news, too: from then on no commit can come into force."""
    gnupg = fleet.root / "etc/edgescribe-pull/gnupg"
    if left == "other":
        fleet.trust(NEXT_SIGNER)
    else:
        shutil.rmtree(gnupg)
    if left == "none":
        gnupg.mkdir(mode=0o700)
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.inventory, fleet.health) == (["first"], "first", "pull_untrusted")
    fleet.trust(SIGNER)
    assert fleet.pull() == 0
    assert (fleet.plays, fleet.health) == (["first"], "")


def test_a_key_that_expires_leaves_the_device_as_it_is(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has signed while it was valid stays in place; `health` says that no news can come."""
    fleet.trust(SIGNER, EXPIRED_SIGNER)
    fleet.commit("signed in time", EXPIRED_SIGNER)
    with monkeypatch.context() as long_ago:
        long_ago.setenv("PATH", f"{fleet.keys}/long-ago:{os.environ['PATH']}")
        assert fleet.pull() == 0
    assert fleet.pull() == 1
    assert (fleet.inventory, fleet.health) == ("signed in time", "pull_untrusted")
    assert fleet.plays == ["first", "signed in time"]


def test_the_next_key_takes_over_before_the_last_one_expires(fleet: Fleet) -> None:
    """Both are trusted for a while; then the old one is left out."""
    fleet.trust(SIGNER, NEXT_SIGNER)
    fleet.commit("by the next", NEXT_SIGNER)
    assert fleet.pull() == 0
    fleet.trust(NEXT_SIGNER)
    fleet.commit("by the next alone", NEXT_SIGNER)
    assert fleet.pull() == 0
    fleet.commit("by the old one")
    assert fleet.pull() == 1
    assert fleet.plays == ["first", "by the next", "by the next alone"]


def test_a_device_that_was_away_while_keys_were_rotated_takes_the_new_key_first(fleet: Fleet) -> None:
    """The commit that brings it is not the newest any more; the next run takes the newest."""
    brings_the_key = fleet.commit("brings the key")
    fleet.commit("by the next", NEXT_SIGNER)
    fleet.commit("by the next again", NEXT_SIGNER)
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.health) == (["first", "brings the key"], "pull_untrusted")
    assert brings_the_key in (fleet.root / "var/lib/edgescribe-pull.json").read_text(encoding="utf-8")
    assert fleet.pull() == 1
    fleet.trust(SIGNER, NEXT_SIGNER)
    assert fleet.pull() == 0
    assert (fleet.plays, fleet.health) == (["first", "brings the key", "by the next again"], "")


def test_no_earlier_commit_of_another_history_is_taken(fleet: Fleet) -> None:
    """Below an unsigned commit lies a signed one that does not descend from what is in force."""
    fleet.git("checkout", "--quiet", "--orphan", "another")
    fleet.commit("another history")
    fleet.git("branch", "--force", "main", fleet.commit("evil", None))
    assert fleet.pull() == 1
    assert fleet.plays == ["first"]


def test_keys_that_cannot_be_imported_leave_those_that_are_there(fleet: Fleet) -> None:
    """Half a key in the inventory must not lock the device out."""
    (fleet.root / "etc/edgescribe-pull/keys.asc").write_text("no key at all", encoding="utf-8")
    fleet.run_shell("Trust these keys and no others", check=False)
    fleet.commit("second")
    assert fleet.pull() == 0


def test_a_branch_that_is_rewound_brings_no_old_release_back(fleet: Fleet) -> None:
    """Who can write to the repository needs no key for that; a revert, which is signed, goes back."""
    second = fleet.commit("second")
    fleet.pull()
    fleet.git("reset", "--quiet", "--hard", "HEAD~1")
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.inventory, fleet.health) == (["first", "second"], "second", "pull_rewound")
    fleet.git("reset", "--quiet", "--hard", second)
    fleet.commit("first")
    assert fleet.pull() == 0
    assert (fleet.inventory, fleet.health) == ("first", "")


@pytest.mark.parametrize("lost", ["edgescribe-pull", "edgescribe-pull/.git", "edgescribe-pull/.git/HEAD"])
def test_a_lost_repository_does_not_forget_what_is_in_force(fleet: Fleet, lost: str) -> None:
    """A power cut damages it; it is fetched again, and the branch can still not be rewound."""
    fleet.commit("second")
    fleet.pull()
    path = fleet.root / "var/lib" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    fleet.git("reset", "--quiet", "--hard", "HEAD~1")
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.health) == (["first", "second"], "pull_rewound")


def test_a_damaged_note_of_what_is_in_force_stops_everything(fleet: Fleet) -> None:
    """An attacker who damages it must not bring an old release back."""
    (fleet.root / "var/lib/edgescribe-pull.json").write_text("{", encoding="utf-8")
    fleet.commit("second")
    assert fleet.pull() == 1
    assert (fleet.plays, fleet.health) == (["first"], "pull_rewound")


def test_another_history_comes_into_force_if_it_is_asked_for_by_name(fleet: Fleet) -> None:
    """By its full id and once: afterwards the branch cannot be rewound to it."""
    fleet.git("checkout", "--quiet", "--orphan", "another")
    other = fleet.commit("another history")
    fleet.git("branch", "--force", "main", other)
    assert fleet.pull() == 1
    assert fleet.health == "pull_rewound"
    fleet.configure(accept=other[:12])
    assert fleet.pull() == 1
    fleet.configure(accept=other)
    assert fleet.pull() == 0
    fleet.commit("its second")
    fleet.git("branch", "--force", "main", "another")
    assert fleet.pull() == 0
    fleet.git("branch", "--force", "main", other)
    assert fleet.pull() == 1
    assert fleet.plays == ["first", "another history", "its second"]


def test_a_commit_that_did_not_come_to_its_end_is_tried_again(fleet: Fleet) -> None:
    """A mirror that is down for an hour must not cost the commit, and what replaces it need not descend from it."""
    fleet.status = 2
    fleet.commit("second")
    assert [fleet.pull(), fleet.pull()] == [1, 1]
    assert fleet.plays == ["first", "second", "second"]
    fleet.status = 0
    fleet.git("reset", "--quiet", "--hard", "HEAD~1")
    fleet.commit("instead of it")
    assert fleet.pull() == 0
    assert fleet.plays[-1] == "instead of it"
    assert fleet.health == ""


def test_what_was_taken_back_waits_for_the_next_commit(fleet: Fleet) -> None:
    """A run without news and one without network give the release that failed no second trial."""
    fleet.status, fleet.takes_back = 2, True
    fleet.commit("bad")
    assert fleet.pull() == 1
    assert fleet.pull() == 0
    fleet.remote.rename(fleet.folder / "away")
    assert fleet.pull() == 1
    (fleet.folder / "away").rename(fleet.remote)
    assert fleet.pull() == 0
    assert fleet.plays == ["first", "bad"]
    fleet.status, fleet.takes_back = 0, False
    fleet.commit("good")
    assert fleet.pull() == 0
    assert fleet.plays == ["first", "bad", "good"]


def test_nothing_lies_beside_what_was_signed(fleet: Fleet) -> None:
    """A run was cut off while it put files in place; git's own locks are no obstacle either."""
    checkout = fleet.root / "var/lib/edgescribe-pull"
    (checkout / "evil.yml").touch()
    (checkout / "inventory.yml").write_text("evil", encoding="utf-8")
    (checkout / ".git/index.lock").touch()
    (checkout / ".git/refs/edgescribe/tip.lock").touch()
    fleet.commit("second")
    assert fleet.pull() == 0
    assert fleet.plays == ["first", "second"]
    assert sorted(path.name for path in checkout.iterdir()) == [".git", "inventory.yml"]


def test_a_device_that_is_told_to_pull_no_longer_leaves_nothing(fleet: Fleet) -> None:
    """The playbook deletes its files while it runs."""

    def remove(*_: object) -> int:
        for name in ("etc/edgescribe-pull", "var/lib/edgescribe-pull"):
            shutil.rmtree(fleet.root / name)
        (fleet.root / "var/lib/edgescribe-pull.json").unlink()
        return 0

    fleet.commit("no more")
    assert edgescribe_pull.main(["--root", str(fleet.root)], remove) == 0
    assert [path.name for path in fleet.root.rglob("*pull*")] == []


def test_the_vault_is_open_to_the_playbook(fleet: Fleet) -> None:
    """By a file that only root may read."""
    password = fleet.root / "etc/edgescribe-pull/vault-password"
    password.write_text("secret\n", encoding="utf-8")
    seen: list[str | None] = []

    def play(command: list[str], _folder: Path, environment: dict[str, str]) -> int:
        seen.append(environment.get("ANSIBLE_VAULT_PASSWORD_FILE"))
        assert "secret" not in " ".join(command)
        return 0

    fleet.commit("second")
    assert edgescribe_pull.main(["--root", str(fleet.root)], play) == 0
    assert seen == [str(password)]


# Addresses with credentials.

USER, PASSWORD = "fleet user", "100%s3cr3t@:/+"
IN_ADDRESS = "fleet%20user:100%25s3cr3t%40%3A%2F+"


class Guarded(http.server.SimpleHTTPRequestHandler):
    """A git server (the protocol of plain files) that wants a password, and looks around while a fetch is under way."""

    arguments: ClassVar[set[str]] = set()
    """Arguments of all processes of this machine, as everybody can read them."""

    def do_GET(self) -> None:
        """Answer who knows the password."""
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.arguments.add(path.read_bytes().decode(errors="replace"))
            except OSError:
                continue
        if self.headers["Authorization"] == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="fleet"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(fleet: Fleet) -> Iterator[str]:
    """Its address and port."""
    handler = functools.partial(Guarded, directory=str(fleet.remote / ".git"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def test_credentials_in_the_address_stay_secret(fleet: Fleet, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither in arguments of processes, nor in the log, nor in files but the role's own. `%` is no obstacle."""
    fleet.configure(url=f"http://{IN_ADDRESS}@{server}/")
    fleet.commit("second")
    fleet.git("update-server-info")
    assert fleet.pull() == 0
    fleet.configure(url=f"http://{IN_ADDRESS}x@{server}/")
    assert fleet.pull() == 1
    printed = capfd.readouterr()
    assert fleet.plays == ["first", "second"]
    assert any("git-remote-http" in words for words in Guarded.arguments)
    kept = {path.name: path.read_bytes() for path in fleet.root.rglob("*") if path.is_file()}
    del kept["config.json"]
    for secret in ("s3cr3t", "fleet%20user", USER):
        assert not [words for words in Guarded.arguments if secret in words and "pytest" not in words]
        assert secret not in printed.out + printed.err
        assert not [name for name, content in kept.items() if secret.encode() in content]


@pytest.mark.parametrize(
    "url", ["git@git.example:fleet.git", "ssh://git@git.example/fleet.git", "file:///srv/100%25.git", "/srv/a@b.git"]
)
def test_an_address_without_a_password_is_left_alone(url: str) -> None:
    """SSH wants the user in it."""
    assert edgescribe_pull.without_credentials(url) == (url, {})


def test_the_unit_holds_nothing_of_the_inventory(tmp_path: Path) -> None:
    """Everybody can read it, and systemd would take a `%` in it for a specifier."""
    plain = text_of("edgescribe-pull.service", tmp_path)
    said = {"url": "https://u:p%40@x/%n.git", "branch": "%i", "inventory": "%h", "playbook": "%t"}
    variables = {f"edgescribe_pull_{name}": text for name, text in said.items()}
    text = text_of("edgescribe-pull.service", tmp_path, **variables)
    assert text == plain
    assert "%" not in text.partition("ExecStart=")[2]
