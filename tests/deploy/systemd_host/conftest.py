import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.deploy.systemd_host.host import CACHE, SystemdHost, install, make_base, missing
from tests.support.clips import clip, silence
from tests.support.virtual_microphone import Speaker, VirtualMicrophone

MODELS = "/var/lib/edgescribe-models"

Service = Callable[..., SystemdHost]


@pytest.fixture(scope="session")
def host() -> Iterator[SystemdHost]:
    """A booted host with edgescribe installed and a virtual microphone; its Debian is kept for the next time."""
    if reason := missing():
        pytest.skip(f"no host with systemd on this machine: {reason}")
    make_base(CACHE / "base")
    code = CACHE / "code"
    shutil.rmtree(code, ignore_errors=True)
    install(code, REPOSITORY, Path(sysconfig.get_path("purelib")))
    # Not in pytest's own folder: what an overlay writes to may not be an overlay itself, and here it is a disk.
    folder = CACHE / "host"
    shutil.rmtree(folder, ignore_errors=True)
    host = SystemdHost(folder, "edgescribe-test", code, CACHE / "base")
    try:
        host.boot()
        yield host
    finally:
        host.halt()
        shutil.rmtree(code, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def microphone(host: SystemdHost) -> VirtualMicrophone:
    """The host's only microphone."""
    folder = host.root / "opt/microphone"
    folder.mkdir()
    device = VirtualMicrophone(folder)
    text = device.configuration.read_text(encoding="utf-8")
    device.configuration.write_text(text.replace(str(host.root), ""), encoding="utf-8")
    return device


@pytest.fixture
def speech(microphone: VirtualMicrophone) -> Iterator[None]:
    """Somebody says the same sentence over and over, until the test is over."""
    speaker = Speaker(microphone, np.concatenate([silence(1.0), clip("en_vm-msgforwarded")]))
    yield
    speaker.stop()


@pytest.fixture
def service(host: SystemdHost, microphone: VirtualMicrophone) -> Iterator[Service]:
    """Starts the service with a configuration, and lines for a drop-in; what it publishes is in the journal."""
    del microphone

    def start(configuration: str, drop_in: str = "") -> SystemdHost:
        host.write("/etc/edgescribe/config.toml", configuration)
        environment = "Environment=ALSA_CONFIG_PATH=/opt/microphone/asound.conf"
        host.write("/etc/systemd/system/edgescribe.service.d/test.conf", f"[Service]\n{environment}\n{drop_in}\n")
        host.do("systemctl", "daemon-reload")
        host.since = host.cursor()
        host.do("systemctl", "start", "edgescribe")
        return host

    yield start
    host.ask("systemctl", "stop", "edgescribe")
    host.ask("systemctl", "reset-failed", "edgescribe")


@pytest.fixture
def weights(host: SystemdHost, pulled: Callable[[str], Path]) -> Callable[[str], str]:
    """Puts a model into the host's store, and gives the lines of configuration that name it."""

    def put(name: str) -> str:
        source = pulled(name).parent if pulled(name).is_file() else pulled(name)
        target = host.root / MODELS.lstrip("/") / name
        if not target.exists():
            shutil.copytree(source, target)
        kind = "faster_whisper" if name.endswith("-ct2") else "whisper_cpp"
        return f'models.dir = "{MODELS}"\nengine.kind = "{kind}"\nengine.model = "{name}"\n'

    return put
