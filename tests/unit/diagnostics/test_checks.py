from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent.config.layers import Loaded
from agent.config.settings import (
    AlsaSettings,
    FasterWhisperSettings,
    MqttSettings,
    ScriptedSettings,
    Settings,
    WhisperCppSettings,
)
from agent.diagnostics import Finding, Status
from agent.diagnostics.checks import build_features, diagnose
from agent.diagnostics.configuration import findings, wrong_settings
from agent.diagnostics.facts import CTranslate2Build, Facts, Memory, Storage
from agent.errors import DeviceBusy, DeviceUnavailable
from agent.install import extras
from agent.install.systemctl import Condition
from agent.messages.identity import Machine
from agent.models.catalogue import memory_need_mb

HERE = Machine("boot", "Raspberry Pi 4 Model B Rev 1.4", "Debian GNU/Linux 12 (bookworm)", "6.6", "aarch64", "3.11")
SD_CARD = Storage("/dev/mmcblk0p2", "ext4", read_only=False, errors=0, wear_pct=None)
SERVICE = Condition(loaded=True, active="active", devices=("char-alsa",))


def loaded(**sections: Any) -> Loaded:
    """Settings that come from nowhere, with a microphone, whatever this machine has."""
    given = {"source": AlsaSettings(device="plughw:CARD=Device"), **sections}
    return Loaded(Settings(**given), origins={}, file=None)


PI_4 = Facts(
    loaded=loaded(),
    configuration=(),
    machine=HERE,
    cores=4,
    memory=Memory(3_792, 3_400),
    cpu_features=frozenset({"fp", "asimd", "crc32"}),
    gpu=False,
    engine=WhisperCppSettings(),
    need_mb=153,
    whisper_cpp="WHISPER : COREML = 0 | OPENVINO = 0 | CPU : NEON = 1 | ARM_FMA = 1 | OPENMP = 1 | REPACK = 1 | ",
    whisper_cpp_for="",
    whisper_cpp_refusal="",
    ctranslate2=None,
    source_problem=None,
    broker_problem="",
    clock_synced=True,
    state_dir=Path("/var/lib/edgescribe"),
    state_problem="",
    state_free_mb=20_000,
    storage=SD_CARD,
    service=SERVICE,
    exposure=1.2,
)
PI_5 = replace(PI_4, cpu_features=frozenset({"asimd", "asimddp", "asimdhp", "fphp"}))


def wrong(subject: str, text: str) -> Finding:
    """A fault of the settings, as `configuration` finds it."""
    return Finding(Status.FAIL, subject, text)


def worse(facts: Facts) -> list[Finding]:
    """What is not ok."""
    return [finding for finding in diagnose(facts) if finding.status is not Status.OK]


def test_a_pi_4_with_everything_in_place_is_well() -> None:
    """Nothing to complain about: the public wheel is the right one for its CPU."""
    assert worse(PI_4) == []


def test_a_pi_5_learns_what_the_public_wheel_leaves_unused() -> None:
    """Dot product and fp16 are in the CPU and not in the build: a warning with two ways out."""
    (finding,) = worse(PI_5)
    assert finding.status is Status.WARN
    assert "DOTPROD, FP16_VA" in finding.text
    assert "wheelhouse/aarch64-cortex-a76" in finding.remedy
    assert extras.here().again("pywhispercpp", "--no-binary", "pywhispercpp") in finding.remedy
    built = replace(PI_5, whisper_cpp="CPU : NEON = 1 | FP16_VA = 1 | DOTPROD = 1 | ")
    assert worse(built) == []


def test_a_wheel_for_another_cpu_fails_if_its_engine_is_wanted() -> None:
    """What was refused is said as it was, and nothing about how it was built."""
    refused = replace(PI_4, whisper_cpp=None, whisper_cpp_refusal="built for cortex-a76: take another")
    (finding,) = worse(refused)
    assert (finding.status, finding.subject, finding.text) == (
        Status.FAIL,
        "whisper.cpp",
        "built for cortex-a76: take another",
    )
    other = replace(refused, engine=FasterWhisperSettings(), ctranslate2=CTranslate2Build("4.5.0", ("int8",), 0))
    assert [finding.status for finding in worse(other)] == [Status.WARN]


def test_the_class_that_a_wheel_was_built_for_is_said() -> None:
    """A user sees which wheelhouse a device was installed from."""
    built = replace(PI_5, whisper_cpp="CPU : FP16_VA = 1 | DOTPROD = 1 |", whisper_cpp_for="cortex-a76")
    (said,) = [finding.text for finding in diagnose(built) if finding.subject == "whisper.cpp"]
    assert said == "built for cortex-a76, with DOTPROD, FP16_VA"


def test_a_jetson_learns_that_ctranslate2_does_not_see_its_gpu() -> None:
    """The package index has only a CPU build for aarch64; that is said rather than found out by waiting."""
    jetson = replace(PI_4, gpu=True, ctranslate2=CTranslate2Build("4.5.0", ("int8",), 0))
    (finding,) = worse(jetson)
    assert (finding.status, finding.subject) == (Status.WARN, "CTranslate2")
    assert "WITH_CUDA=ON" in finding.remedy
    assert worse(replace(jetson, ctranslate2=CTranslate2Build("4.5.0", ("int8",), 1))) == []


def test_an_engine_that_is_not_installed_fails_only_if_it_is_wanted() -> None:
    """A missing CTranslate2 is nobody's problem while whisper.cpp does the work, and the other way round."""
    assert worse(PI_4) == []
    missing = wrong("CTranslate2", "a package is not installed")
    assert worse(replace(PI_4, engine=FasterWhisperSettings(), configuration=(missing,))) == [missing]
    (finding,) = worse(replace(PI_4, whisper_cpp=None))
    assert finding.remedy == extras.here().again("pywhispercpp")


@pytest.mark.parametrize(
    ("facts", "status", "subject"),
    [
        (replace(PI_4, configuration=(wrong("settings", "config.toml:1: x"),)), Status.FAIL, "settings"),
        (replace(PI_4, configuration=(wrong("model", "damaged"),)), Status.FAIL, "model"),
        (replace(PI_4, configuration=(wrong("source", "no such file"),)), Status.FAIL, "source"),
        (replace(PI_4, configuration=(wrong("calibration", "none"),), engine=None), Status.FAIL, "calibration"),
        (replace(PI_4, source_problem=DeviceUnavailable("no microphone: plug one in")), Status.FAIL, "source"),
        (replace(PI_4, broker_problem="connection refused"), Status.FAIL, "broker"),
        (replace(PI_4, clock_synced=False), Status.WARN, "clock"),
        (replace(PI_4, state_problem="read-only file system"), Status.FAIL, "state folder"),
        (replace(PI_4, state_free_mb=100), Status.WARN, "state folder"),
        (replace(PI_4, memory=Memory(3_792, 160)), Status.WARN, "memory"),
        (replace(PI_4, memory=Memory(3_792, 120)), Status.FAIL, "memory"),
    ],
)
def test_what_is_wrong_is_said_in_one_place(facts: Facts, status: Status, subject: str) -> None:
    """Each trouble gives exactly one finding, of its own weight."""
    (finding,) = worse(facts)
    assert (finding.status, finding.subject) == (status, subject)


def test_every_trouble_has_a_remedy() -> None:
    """Whatever is wrong, some line says what to do."""
    ill = replace(
        PI_5,
        configuration=tuple(wrong_settings("a: b")),
        whisper_cpp=None,
        broker_problem="refused",
        clock_synced=False,
        state_problem="read-only",
        memory=Memory(3_792, 1),
    )
    assert [finding for finding in worse(ill) if not finding.remedy] == []


def test_without_a_broker_or_a_model_there_is_nothing_to_say_about_them() -> None:
    """`mqtt.enabled = false` and the scripted engine leave their lines out."""
    subjects = {
        finding.subject
        for finding in diagnose(
            replace(
                PI_4,
                loaded=loaded(mqtt=MqttSettings(enabled=False), stdout={"enabled": True}),
                engine=ScriptedSettings(),
            )
        )
    }
    assert subjects.isdisjoint({"broker", "model", "memory"})


def test_features_are_read_from_whisper_cpps_own_line() -> None:
    """What is 0 is not built in."""
    line = "WHISPER : COREML = 0 | CPU : SSE3 = 1 | AVX512_VNNI = 1 | AVX512 = 0 | OPENMP = 1 | "
    assert build_features(line) == {"SSE3", "AVX512_VNNI", "OPENMP"}


@pytest.mark.parametrize(
    ("size", "size_bytes", "ctranslate2", "measured_mb"),
    [
        ("tiny", 43_550_795, False, 153),
        ("tiny", 32_166_155, False, 142),
        ("tiny", 77_704_715, False, 188),
        ("base", 59_707_625, False, 192),
        ("base", 81_768_585, False, 213),
        ("base", 147_951_465, False, 279),
        ("tiny", 75_537_502, True, 258),
        ("base", 145_217_607, True, 349),
    ],
)
def test_the_memory_that_is_reckoned_is_what_was_measured(
    size: str, size_bytes: int, measured_mb: int, *, ctranslate2: bool
) -> None:
    """Within 3 % of the resident size of the process with each model."""
    assert memory_need_mb(size, size_bytes, ctranslate2=ctranslate2) == pytest.approx(measured_mb, rel=0.03)


def test_a_device_that_is_muted_is_not_searched_for_a_fault() -> None:
    """Known by its state folder, or by what the service says to those who may not look into that."""
    reason = "muted by a command (/var/lib/edgescribe/applied.json): the microphone stays closed until cmd/listen ON"
    (finding,) = worse(replace(PI_4, configuration=(Finding(Status.WARN, "muted", reason),)))
    assert (finding.status, finding.subject, finding.text) == (Status.WARN, "muted", reason)
    assert "cmd/listen" in finding.remedy
    (finding,) = worse(replace(PI_4, service=replace(SERVICE, status="mute; broker_down")))
    assert (finding.status, finding.subject) == (Status.WARN, "muted")


@pytest.mark.parametrize(
    ("says", "status", "text"),
    [
        ("listening to microphone plughw:CARD=Device; broker_down", Status.OK, "is in use by the service"),
        ("no microphone plughw:CARD=Device: waiting for it", Status.WARN, "something else has it open"),
        ("mute", Status.WARN, "something else has it open"),
        ("", Status.WARN, "something else has it open"),
    ],
)
def test_a_microphone_that_is_in_use_is_no_failure(says: str, status: Status, text: str) -> None:
    """The service holds it for itself; whether it is the service is known by what that says."""
    problem = DeviceBusy("something else has it open: see what")
    busy = replace(PI_4, source_problem=problem, service=replace(SERVICE, status=says))
    (finding,) = [finding for finding in diagnose(busy) if finding.subject == "source"]
    assert finding.status is status
    assert text in finding.text


@pytest.mark.parametrize(("host", "here"), [("localhost", True), ("::1", True), ("broker.lan", False)])
def test_a_broker_is_installed_where_it_is_wanted(host: str, *, here: bool) -> None:
    """To install one here is no remedy for one elsewhere."""
    (finding,) = worse(replace(PI_4, loaded=loaded(mqtt=MqttSettings(host=host)), broker_problem="connection refused"))
    assert ("apt install mosquitto" in finding.remedy) is here


def test_what_works_and_should_not_stay_so_is_a_warning() -> None:
    """What `check` warns about, the doctor does, too."""
    warnings = tuple(findings(loaded(mqtt=MqttSettings(host="broker.lan", password=SecretStr("x")))))
    (finding,) = [one for one in worse(replace(PI_4, configuration=warnings)) if one.subject == "settings"]
    assert finding.status is Status.WARN
    assert "unencrypted" in finding.text


def test_a_unit_as_it_is_delivered_is_well() -> None:
    """It says how exposed it is, and what it may open."""
    assert "exposure 1.2 of 10; of /dev it may open char-alsa" in [finding.text for finding in diagnose(PI_4)]
    assert worse(replace(PI_4, service=None, exposure=None, storage=None)) == []


@pytest.mark.parametrize(
    ("facts", "status", "subject"),
    [
        (replace(PI_4, service=replace(SERVICE, active="failed")), Status.FAIL, "service"),
        (replace(PI_4, exposure=9.2), Status.WARN, "sandbox"),
        (replace(PI_4, service=replace(SERVICE, devices=())), Status.WARN, "sandbox"),
        (replace(PI_4, memory_limited=False), Status.WARN, "memory limit"),
        (replace(PI_4, storage=replace(SD_CARD, wear_pct=30)), Status.OK, "storage"),
        (replace(PI_4, storage=replace(SD_CARD, read_only=True)), Status.FAIL, "storage"),
        (replace(PI_4, storage=replace(SD_CARD, errors=3)), Status.WARN, "storage"),
        (replace(PI_4, storage=replace(SD_CARD, wear_pct=90)), Status.WARN, "storage"),
        (replace(PI_4, storage=replace(SD_CARD, file_system="tmpfs")), Status.WARN, "storage"),
    ],
)
def test_unit_and_medium_are_judged_by_what_they_admit(facts: Facts, status: Status, subject: str) -> None:
    """One finding each, and never without something to do."""
    assert [finding.subject for finding in worse(facts)] == ([] if status is Status.OK else [subject])
    (finding,) = [finding for finding in diagnose(facts) if finding.subject == subject]
    assert finding.status is status
    assert bool(finding.remedy) is (status is not Status.OK)


@pytest.mark.parametrize("file", ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt", ""])
def test_the_command_line_of_the_kernel_is_where_the_board_has_it(file: str) -> None:
    """Only a Raspberry Pi has such a file: since Debian 12 below /boot/firmware, before that below /boot."""
    (finding,) = worse(replace(PI_4, memory_limited=False, kernel_command_line=file))
    assert (file or "of the kernel") in finding.remedy
    assert ("cmdline.txt" in finding.remedy) is bool(file)


def test_swap_is_a_finding_only_where_memory_is_scarce_too() -> None:
    """A board may keep in its swap what nobody needs."""
    small = replace(PI_4, engine=ScriptedSettings())
    assert worse(replace(small, memory=Memory(512, 200, 90.0))) == []
    assert worse(replace(small, memory=Memory(512, 30, 10.0))) == []
    (finding,) = worse(replace(small, memory=Memory(512, 30, 90.0)))
    assert finding.remedy
