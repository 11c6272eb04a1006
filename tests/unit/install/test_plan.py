import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from agent.audio.libasound import CaptureDevice
from agent.config.settings import (
    AlsaSettings,
    FasterWhisperSettings,
    ModelsSettings,
    MqttSettings,
    Settings,
    TlsSettings,
)
from agent.errors import AgentError, ConfigError, DeviceUnavailable, InstallError
from agent.install import plan
from agent.install.facts import COMMAND, CONFIG, PASSWORD, UNIT_FILE, Found, Record, digest
from agent.install.plan import DROP_INS, MODELS, drop_in, drop_ins, files, proposal, toml, unit
from tests.conftest import REPOSITORY

BROKER = "localhost"
USB = CaptureDevice("plughw:CARD=Device,DEV=0", "USB PnP Sound Device, USB Audio")
WEBCAM = CaptureDevice("plughw:CARD=C920,DEV=0", "HD Pro Webcam C920, USB Audio")
PI = Found(
    program=Path("/opt/edgescribe/bin/edgescribe"),
    program_problem="",
    microphones=(USB,),
    alsa=True,
    board="Raspberry Pi 4 Model B Rev 1.4",
    arch="aarch64",
    memory_mb=3_792,
    config=None,
    unit=None,
    command=None,
    record=Record(),
)
OURS = 'source.device = "x"\n[mqtt]\nhost = "broker.lan"\n[mqtt.tls]\nenabled = true\n'
FRESH = Settings(source=AlsaSettings(device=USB.pcm), models=ModelsSettings(dir=Path(MODELS)))
INSTALLED = replace(PI, config=OURS, record=Record({str(CONFIG): digest(OURS)}))


def test_a_fresh_device_needs_to_be_told_nothing() -> None:
    """The only microphone, the broker that was found, and a folder of models that the service may read."""
    assert proposal(PI, {}, BROKER) == {
        "source.device": "plughw:CARD=Device,DEV=0",
        "mqtt.host": "localhost",
        "models.dir": MODELS,
    }


def test_what_is_said_is_not_looked_for() -> None:
    """Neither a missing microphone nor a missing broker matters where both are named."""
    said = {"source.device": "plughw:CARD=Later", "mqtt.host": "broker.lan"}
    proposed = proposal(replace(PI, microphones=()), said, None)
    assert (proposed["source.device"], proposed["mqtt.host"]) == ("plughw:CARD=Later", "broker.lan")


def test_two_inputs_of_one_card_are_one_microphone() -> None:
    """The first input is taken: there is nothing to choose between cards."""
    second = CaptureDevice("plughw:CARD=Device,DEV=1", "USB PnP Sound Device, line in")
    assert proposal(replace(PI, microphones=(USB, second)), {}, BROKER)["source.device"] == USB.pcm


@pytest.mark.parametrize(
    ("found", "broker", "error", "says"),
    [
        (replace(PI, microphones=()), BROKER, DeviceUnavailable, "no microphone on this machine: plug one in"),
        (
            replace(PI, microphones=(USB, WEBCAM)),
            BROKER,
            DeviceUnavailable,
            "--device plughw:CARD=C920,DEV=0    HD Pro",
        ),
        (replace(PI, alsa=False), BROKER, ConfigError, "needs libasound"),
        (PI, None, ConfigError, "--mqtt-host"),
    ],
)
def test_what_cannot_be_found_out_is_said_with_what_to_do(
    found: Found, broker: str | None, error: type[AgentError], says: str
) -> None:
    """One error names the option to use; of several microphones all are named."""
    with pytest.raises(error, match=says):
        proposal(found, {}, broker)


def test_a_secret_is_not_taken_where_it_would_be_readable() -> None:
    """`--set mqtt.password=…` would be in the list of processes and in a public file."""
    with pytest.raises(ConfigError, match="--password-file") as caught:
        proposal(PI, {"mqtt.password": "hunter2"}, BROKER)
    assert "hunter2" not in str(caught.value)


def test_installing_again_leaves_the_settings_alone() -> None:
    """Nothing is decided anew, though the microphone be unplugged meanwhile."""
    assert proposal(replace(INSTALLED, microphones=()), {}, None) == {}


def test_settings_of_ours_are_changed_key_by_key() -> None:
    """What is said now is added to what was said before."""
    assert proposal(INSTALLED, {"mqtt.host": "other"}, None) == {
        "source.device": "x",
        "mqtt.host": "other",
        "mqtt.tls.enabled": True,
    }


def test_settings_of_somebody_else_are_kept() -> None:
    """A file that was changed by hand is used as it is, and never written over."""
    by_hand = replace(INSTALLED, config=OURS + "# mine\n")
    assert proposal(by_hand, {}, None) == {}
    with pytest.raises(InstallError, match=r"config\.toml was written by hand: change mqtt\.host there"):
        proposal(by_hand, {"mqtt.host": "other"}, None)


def test_the_settings_are_minimal_and_mean_what_was_said() -> None:
    """Text from the command line becomes the value that validation made of it; tables are where they belong."""
    settings = Settings(state_dir=Path("/srv/x"), mqtt=MqttSettings(port=8883, tls=TlsSettings(enabled=True)))
    text = toml({"mqtt.port": "8883", "mqtt.tls.enabled": "true", "state_dir": "/srv/x"}, settings)
    assert tomllib.loads(text) == {"state_dir": "/srv/x", "mqtt": {"port": 8883, "tls": {"enabled": True}}}


def test_the_unit_runs_this_very_environment() -> None:
    """ExecStart is the program that was asked; nothing else of the shipped unit changes."""
    (written, _command, config) = files(PI, proposal(PI, {}, BROKER), FRESH)
    assert written.path == str(UNIT_FILE)
    assert "ExecStart=/opt/edgescribe/bin/edgescribe run\n" in written.text
    assert "DynamicUser=yes" in written.text
    assert (config.path, config.mode) == (str(CONFIG), 0o644)


def test_every_shell_finds_the_command() -> None:
    """Unless one of that name is there already, as with pipx."""
    (command,) = [file for file in files(PI, {}, Settings()) if file.path == str(COMMAND)]
    assert (command.mode, command.text) == (0o755, '#!/bin/sh\nexec /opt/edgescribe/bin/edgescribe "$@"\n')
    theirs = replace(PI, command="#!/opt/pipx/venvs/edgescribe/bin/python\n")
    assert str(COMMAND) not in [file.path for file in files(theirs, {}, Settings())]


def test_the_password_is_roots_alone() -> None:
    """It goes into a file of its own, mode 600, and into no other; nor does it show where the plan is printed."""
    planned = files(PI, proposal(PI, {}, BROKER), FRESH, password="hunter2")
    assert [(file.path, file.mode) for file in planned if "hunter2" in file.text] == [(str(PASSWORD), 0o600)]
    assert "hunter2" not in repr(planned)


@pytest.mark.parametrize(
    ("found", "settings", "expected"),
    [
        (PI, Settings(), ()),
        (replace(PI, board="Raspberry Pi Zero 2 W Rev 1.0", memory_mb=416), Settings(), ("low-memory",)),
        (replace(PI, board="NVIDIA Jetson Orin Nano Developer Kit"), Settings(), ("jetson",)),
        (replace(PI, arch="x86_64"), Settings(engine=FasterWhisperSettings()), ("faster-whisper",)),
        (PI, Settings(engine=FasterWhisperSettings()), ()),
    ],
)
def test_drop_ins_follow_the_board_and_the_engine(found: Found, settings: Settings, expected: tuple[str, ...]) -> None:
    """Little memory, a Jetson, code made at run time: each gets its drop-in, and nobody else."""
    assert drop_ins(found, settings) == expected
    paths = [file.path for file in files(found, {}, settings)]
    assert [path for path in paths if path.startswith(str(DROP_INS))] == [
        str(DROP_INS / f"{name}.conf") for name in expected
    ]


def test_a_program_that_the_service_cannot_see_is_refused() -> None:
    """Nothing is planned that would fail at the first start."""
    with pytest.raises(InstallError, match="hidden"):
        files(replace(PI, program_problem="it is hidden"), {}, Settings())


def test_a_file_that_the_service_cannot_see_is_refused() -> None:
    """A certificate in somebody's home would be missing in the sandbox."""
    settings = Settings(mqtt=MqttSettings(tls=TlsSettings(enabled=True, ca_file=Path("/home/pi/ca.crt"))))
    with pytest.raises(InstallError, match=r"/home/pi/ca\.crt is in /home, which the service does not see"):
        files(PI, {}, settings)


def test_a_program_in_a_folder_that_systemd_would_misread_is_refused() -> None:
    """A blank or a percent sign means something else in a unit."""
    with pytest.raises(InstallError, match="misread"):
        files(replace(PI, program=Path("/opt/my programs/edgescribe")), {}, Settings())


def test_a_unit_of_somebody_else_is_taken_over_only_by_force() -> None:
    """A unit from Ansible, or one that was edited, is not written over; our own older one is."""
    foreign = replace(PI, unit="[Service]\n")
    with pytest.raises(InstallError, match="--force"):
        files(foreign, {}, Settings())
    assert files(foreign, {}, Settings(), force=True)
    assert files(replace(foreign, record=Record({str(UNIT_FILE): digest("[Service]\n")})), {}, Settings())


def test_the_shipped_unit_is_the_one_that_is_analysed() -> None:
    """What `systemd-analyze` has rated, but for the path of the program."""
    text = (REPOSITORY / "systemd" / "edgescribe.service").read_text(encoding="utf-8")
    program = "/opt/edgescribe/current/bin/edgescribe"
    assert unit(Path(program)) == text
    assert unit(Path("/opt/x/bin/edgescribe")) == text.replace(program, "/opt/x/bin/edgescribe")


def test_every_drop_in_can_be_had() -> None:
    """By its name, as it lies in `systemd/drop-ins`."""
    for path in (REPOSITORY / "systemd" / "drop-ins").glob("*.conf"):
        assert drop_in(path.stem) == path.read_text(encoding="utf-8")


def test_a_wheel_carries_them_where_they_are_looked_for() -> None:
    """pyproject.toml puts the folder beside the module."""
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    target = build["targets"]["wheel"]["force-include"]["systemd"]
    assert REPOSITORY / target == Path(plan.__file__).with_name("units")
