"""A device that fetches its state itself: from git, and only what one of its keys has signed."""

import json
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.deploy.fleet.conftest import NAMES, Fleet
from tests.deploy.fleet.releases import BABBLES
from tests.deploy.fleet.site import PROGRAMS as OPERATORS
from tests.deploy.signing import SIGNER, make_key, public_keys
from tests.deploy.systemd_host.host import CACHE, SystemdHost, borrow
from tests.support.receiver import eventually

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(1800)]

NAME = NAMES[-1]
LIMIT_S = 240.0
PROGRAM = "ansible-playbook"
VAULT = "what opens the vault"
NOT_ITS_OWN = ("/srv", "/opt/ansible", "/var/log", CACHE.parent)
"""Where a device has what the tests, Ansible and the rig have brought along, and the journal."""
EVIL = "{{ lookup('ansible.builtin.pipe', 'touch /srv/evil; echo /usr/bin/python3') }}"
"""What an inventory would do that nobody has signed, if it were read."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository on the device's own disk, and the key of who writes to it."""

    host: SystemdHost
    folder: Path
    """As this machine sees it."""
    keys: Path
    """GnuPG's home of the writer."""

    def commit(self, variables: dict[str, Any], *, signed: bool) -> None:
        """Ask for what `variables` say, beside what the inventory says already."""
        path = self.folder / "inventory.yml"
        inventory = json.loads(path.read_text(encoding="utf-8"))
        inventory["all"]["children"]["edgescribe"]["vars"].update(variables)
        path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
        self.git("add", "--all")
        sign = "--gpg-sign" if signed else "--no-gpg-sign"
        self.git("-c", f"user.signingKey={SIGNER}", "commit", "--quiet", sign, "--message=Ask for another state")

    def health(self) -> list[str]:
        """What the device will say of its pulling."""
        path = self.host.root / "var/lib/edgescribe-pull.health"
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def git(self, *arguments: str) -> str:
        """Git as the writer, who is nobody of the device."""
        who = ("-c", "user.name=Fleet", "-c", f"user.email={SIGNER}", "-c", "safe.directory=*")
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.keys), "GNUPGHOME": str(self.keys)}
        command = ["git", "-C", str(self.folder), *who, *arguments]
        return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout.strip()

    def pull(self) -> str:
        """Let the device look for news now; what systemd thinks of it."""
        before = self._run()["InvocationID"]
        self.host.ask("systemctl", "start", "--no-block", "edgescribe-pull.service")
        assert eventually(lambda: self._ended(before), LIMIT_S), self.log()
        return self._run()["Result"]

    def _run(self) -> dict[str, str]:
        """The last run, as systemd knows it."""
        shown = self.host.ask(
            "systemctl", "show", "edgescribe-pull.service", "--property=InvocationID,ActiveState,Result"
        )
        return {name: value for name, _, value in (line.partition("=") for line in shown.splitlines())}

    def _ended(self, before: str) -> bool:
        """Whether the run after that one is over; it may not even have begun when `systemctl start` is back."""
        run = self._run()
        return run["InvocationID"] != before and run["ActiveState"] in ("inactive", "failed")

    def plays(self) -> int:
        """How often the playbook was run, as far as to where a release comes into force."""
        return self.log().count("Put it into force")

    def log(self) -> str:
        """What the last runs have said."""
        self.host.ask("journalctl", "--sync")
        return self.host.ask("journalctl", "--unit=edgescribe-pull", "--output=cat", "--no-pager")


@pytest.fixture(scope="module")
def keys(fleet: Fleet) -> Path:
    """GnuPG's home with a key."""
    if not shutil.which("git") or not shutil.which("gpg"):
        pytest.skip("git or gpg is missing: apt install git gpg gpg-agent")
    folder = fleet.folder / "gnupg"
    folder.mkdir(mode=0o700)
    make_key(folder)
    return folder


@pytest.fixture(scope="module")
def repository(fleet: Fleet, keys: Path) -> Repository:
    """What a device pulls from, whose first commit asks for what it has."""
    host = fleet.hosts[NAME]
    folder = host.root / "srv/fleet"
    (folder / "collections").mkdir(parents=True)
    for name, change in (("4.0.0", None), ("4.1.0", None), ("4.2.0", BABBLES)):
        release = fleet.release(name, change)
        shutil.copytree(release["edgescribe_wheelhouse"], host.root / "srv/releases" / name)
    shutil.copytree(fleet.variables["edgescribe_models_source"], host.root / "srv/models")
    shutil.copytree(fleet.folder / "collections/ansible_collections", folder / "collections/ansible_collections")
    _inventory(fleet, folder)
    (folder / "pull.yml").write_text("- ansible.builtin.import_playbook: edgescribe.fleet.pull\n", encoding="utf-8")
    _ansible(host)
    found = Repository(host, folder, keys)
    found.git("init", "--quiet", "--initial-branch=main")
    pulling = {
        "edgescribe_pull_url": "file:///srv/fleet",
        "edgescribe_pull_inventory": "inventory.yml",
        "edgescribe_pull_program": f"/opt/ansible/bin/{PROGRAM}",
        "edgescribe_pull_keys": [public_keys(keys, SIGNER)],
        "edgescribe_pull_calendar": "yearly",  # when the tests say, and at no other time
    }
    found.commit({**pulling, "edgescribe_models_source": "/srv/models", **_asked("4.0.0")}, signed=True)
    run = fleet.rollout("1.0.0", None, "--limit", NAME, **pulling, edgescribe_pull_vault_password=VAULT)
    assert run.status == 0
    return found


def _inventory(fleet: Fleet, folder: Path) -> None:
    """The fleet's own, but its secrets are in a vault, as in inventories/three-sites."""
    inventory = json.loads((fleet.folder / "inventory.yml").read_text(encoding="utf-8"))
    group = inventory["all"]["children"]["edgescribe"]
    secrets = {
        "vault_passwords": {name: host.pop("edgescribe_mqtt_password") for name, host in group["hosts"].items()},
        "edgescribe_pull_vault_password": VAULT,
    }
    group["vars"]["edgescribe_mqtt_password"] = "{{ vault_passwords[inventory_hostname] }}"
    (folder / "inventory.yml").write_text(json.dumps(inventory), encoding="utf-8")
    vault, opener = folder / "group_vars/all/vault.yml", fleet.folder / "vault-password"
    vault.parent.mkdir(parents=True)
    vault.write_text(json.dumps(secrets), encoding="utf-8")
    opener.write_text(VAULT, encoding="utf-8")
    encrypt = [str(OPERATORS / "ansible-vault"), "encrypt", "--vault-password-file", str(opener), str(vault)]
    subprocess.run(encrypt, check=True)


def _asked(version: str) -> dict[str, str]:
    return {"edgescribe_version": version, "edgescribe_wheelhouse": f"/srv/releases/{version}"}


def _ansible(host: SystemdHost) -> None:
    """Ansible on the device: what the tests run with, since there is no network to install it from."""
    borrow(host.root / "opt/ansible/lib", Path(sysconfig.get_path("purelib")))
    path = host.root / "opt/ansible/bin" / PROGRAM
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "#!/usr/bin/python3\nimport sys\nsys.path.insert(0, '/opt/ansible/lib')\n"
        "from ansible.cli.playbook import main\nsys.exit(main())\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


def test_a_signed_commit_comes_into_force(fleet: Fleet, repository: Repository) -> None:
    """The device fetches it, builds the release, proves itself, confirms: nobody has reached for it."""
    assert fleet.status(NAME)["release"] == "1.0.0"
    assert repository.pull() == "success", repository.log()
    assert fleet.status(NAME)["confirmed"][-1] == "4.0.0"
    assert repository.host.property("ActiveState") == "active"
    assert "secret-of-" not in repository.log()


def test_a_run_without_news_changes_nothing(fleet: Fleet, repository: Repository) -> None:
    """The inventory with its vault lies there by now, and is read before git is asked."""
    process, plays = repository.host.property("MainPID"), repository.plays()
    assert repository.pull() == "success", repository.log()
    assert "no news" in repository.log()
    assert (repository.host.property("MainPID"), repository.plays()) == (process, plays)
    assert fleet.status(NAME)["release"] == "4.0.0"


def test_what_nobody_has_signed_is_not_run(fleet: Fleet, repository: Repository) -> None:
    """Whoever can write to the repository cannot do anything to the device; the next signed commit is taken again."""
    process = repository.host.property("MainPID")
    repository.commit({**_asked("4.1.0"), "ansible_python_interpreter": EVIL}, signed=False)
    assert repository.pull() == "exit-code"
    repository.host.write("/var/lib/edgescribe-release/last-failure", '{"release": "0", "reason": "of another play"}')
    assert repository.pull() == "exit-code"
    assert repository.health() == ["pull_untrusted"]
    assert not (repository.host.root / "srv/evil").exists()
    assert fleet.status(NAME)["release"] == "4.0.0"
    assert not (repository.host.root / "opt/edgescribe/releases/4.1.0").exists()
    assert repository.host.property("MainPID") == process
    repository.commit({"edgescribe_keep_releases": 2, "ansible_python_interpreter": "/usr/bin/python3"}, signed=True)
    assert repository.pull() == "success", repository.log()
    assert fleet.status(NAME)["confirmed"][-1] == "4.1.0"
    assert repository.health() == []


def test_a_rewound_branch_brings_no_old_release_back(fleet: Fleet, repository: Repository) -> None:
    """The older commit is signed as well; the agent says so in `health`."""
    tip = repository.git("rev-parse", "HEAD")
    repository.git("reset", "--quiet", "--hard", "HEAD~2")
    assert repository.pull() == "exit-code"
    assert repository.health() == ["pull_rewound"]
    assert fleet.status(NAME)["release"] == "4.1.0"
    repository.git("reset", "--quiet", "--hard", tip)
    assert repository.pull() == "success", repository.log()
    assert repository.health() == []


def test_what_was_taken_back_waits_for_the_next_commit(fleet: Fleet, repository: Repository) -> None:
    """Neither runs without news nor one that could not reach git put the same release on trial again."""
    repository.commit(_asked("4.2.0"), signed=True)
    assert repository.pull() == "exit-code"
    assert (fleet.status(NAME)["release"], fleet.status(NAME)["last_failure"]["release"]) == ("4.1.0", "4.2.0")
    plays, away = repository.plays(), repository.folder.with_name("away")
    assert repository.pull() == "success", repository.log()
    repository.folder.rename(away)
    assert repository.pull() == "exit-code"
    away.rename(repository.folder)
    assert repository.pull() == "success", repository.log()
    assert repository.plays() == plays
    repository.commit({**_asked("4.1.0"), "edgescribe_telemetry_interval_s": 30.0}, signed=True)
    assert repository.pull() == "success", repository.log()
    assert repository.plays() == plays + 1
    assert fleet.status(NAME)["last_failure"] is None


def test_a_device_is_taken_out_as_the_operators_guide_says(repository: Repository) -> None:
    """Command by command; afterwards nothing runs, and nothing of it is left."""
    guide = (REPOSITORY / "docs/operators-guide.md").read_text(encoding="utf-8")
    block = re.search(r"One of a fleet:(?:.+\n)+\n((?:    .+\n)+)", guide)
    assert block
    for command in block[1].splitlines():
        repository.host.do("sh", "-c", command.replace("sudo ", ""))
    apart = [word for folder in NOT_ITS_OWN for word in ("-path", str(folder), "-prune", "-o")]
    assert repository.host.do("find", "/", "-xdev", *apart, "-name", "*edgescribe*", "-print") == ""
    assert repository.host.property("ActiveState") == "inactive"
