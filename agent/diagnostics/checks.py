"""Judges a machine: pure functions from facts to findings."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from agent.config.settings import AutoSettings, ScriptedSettings
from agent.diagnostics import Finding, Status
from agent.diagnostics.configuration import LOCAL_HOSTS
from agent.diagnostics.facts import Facts
from agent.errors import DeviceBusy
from agent.install import extras
from agent.models.selection import in_words
from agent.telemetry.naming import broker_name, source_name

ok, warn, fail = (partial(Finding, status) for status in (Status.OK, Status.WARN, Status.FAIL))

LEAST_FREE_MB: Final = 500
"""Room for a model while it is pulled and quantised, and for a queue."""
COMFORTABLE: Final = 0.8
"""Share of the available memory above which the agent's need is a warning."""
SWAPPING_PCT: Final = 50.0
SCARCE: Final = 0.1
"""Share of the memory; less is scarce."""
WORN_PCT: Final = 90
LOOSE: Final = 2.0
"""The delivered unit is at 1.6 or below, and with any of its drop-ins below 2."""
RUNS: Final = ("active", "activating", "reloading")
CPU_FEATURES: Final = {
    "asimddp": "dot product",
    "fphp": "fp16",
    "i8mm": "int8 matrices",
    "avx2": "AVX2",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
}
"""Names in /proc/cpuinfo that matter to inference, and their words."""
WORTH_A_BUILD: Final = {
    "DOTPROD": frozenset({"asimddp"}),
    "FP16_VA": frozenset({"fphp", "asimdhp"}),
    "AVX2": frozenset({"avx2"}),
    "AVX512_VNNI": frozenset({"avx512_vnni"}),
}
"""Names in whisper.cpp's system info, and the CPU features that they use. A Pi 5 and a Jetson Orin have the first two;
the public wheel for aarch64 uses neither (q8_0: 8.5 G instructions for 11 s of speech, against 3.9 G with both)."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings, in the order in which a technician would look."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def _about(facts: Facts, subject: str) -> list[Finding]:
    """Return the findings about the settings that belong to a subject."""
    return [finding for finding in facts.configuration if finding.subject == subject]


def machine(facts: Facts) -> Iterator[Finding]:
    """Describe it."""
    known = [words for name, words in CPU_FEATURES.items() if name in facts.cpu_features]
    here = facts.machine
    yield ok(
        "machine",
        f"{here.hardware or 'unknown board'}, {here.arch}, {facts.cores} cores, {facts.memory.total_mb / 1024:.1f} GB, "
        f"{here.os or 'unknown system'}; CPU: {', '.join(known) or 'without extensions that speed inference up'}",
    )


def settings(facts: Facts) -> Iterator[Finding]:
    """Report their faults and warnings."""
    found = _about(facts, "settings")
    if all(finding.status is not Status.FAIL for finding in found):
        yield ok("settings", "readable")
    yield from found


def whisper_cpp(facts: Facts) -> Iterator[Finding]:
    """Describe its build, and name the abilities of this CPU that it does not use."""
    wanted = facts.engine is not None and facts.engine.kind == "whisper_cpp"
    if facts.whisper_cpp_refusal:
        yield (fail if wanted else warn)("whisper.cpp", facts.whisper_cpp_refusal)
        return
    if facts.whisper_cpp is None:
        if wanted:
            yield fail("whisper.cpp", "cannot be imported", extras.here().again("pywhispercpp"))
        return
    has = facts.cpu_features
    built_with = build_features(facts.whisper_cpp)
    used = f"built for {facts.whisper_cpp_for or 'any CPU'}, with {', '.join(sorted(built_with)) or 'no extensions'}"
    unused = [name for name, needs in WORTH_A_BUILD.items() if needs & has and name not in built_with]
    if not unused:
        yield ok("whisper.cpp", used)
        return
    gain = ": half the instructions with q8_0 or q4_0" if "DOTPROD" in unused else ""
    cpu = "cortex-a76" if WORTH_A_BUILD["DOTPROD"] | WORTH_A_BUILD["FP16_VA"] <= has else "native"
    yield warn(
        "whisper.cpp",
        f"{used}; this CPU could also do {', '.join(unused)}{gain}",
        f"install from wheelhouse/{facts.machine.arch}-{cpu} (docs/wheelhouse.md), or build it here: "
        f"{extras.here().again('pywhispercpp', '--no-binary', 'pywhispercpp')}; "
        'or set engine.kind = "faster_whisper", which chooses at run time',
    )


def build_features(system_info: str) -> frozenset[str]:
    """Return the names with a 1 in whisper.cpp's system info line: `AVX = 1 | AVX2 = 1 | OPENMP = 1`."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info))


def ctranslate2(facts: Facts) -> Iterator[Finding]:
    """Report whether it is installed, and whether it sees the GPU."""
    build = facts.ctranslate2
    if missing := _about(facts, "CTranslate2"):
        yield from missing
    elif build is None:
        yield ok("CTranslate2", "not installed (faster_whisper needs it)")
    elif facts.gpu and not build.cuda_devices:
        yield warn(
            "CTranslate2",
            f"{build.version} does not see the GPU: the package index has no CUDA build of it for {facts.machine.arch}",
            "build CTranslate2 from source with -DWITH_CUDA=ON -DWITH_CUDNN=ON, or stay on the CPU",
        )
    else:
        gpu = f", {build.cuda_devices} GPU" if build.cuda_devices else ""
        yield ok("CTranslate2", f"{build.version}: {', '.join(build.compute_types)}{gpu}")


def calibration(facts: Facts) -> Iterator[Finding]:
    """Report its choice, or why it does not hold."""
    found = _about(facts, "calibration")
    yield from found
    if not found and facts.engine and isinstance(facts.loaded.settings.engine, AutoSettings):
        yield ok("calibration", f"chose {in_words(facts.engine)}")


def model(facts: Facts) -> Iterator[Finding]:
    """Report whether it is on this device and sound, and whether it fits into the memory."""
    if facts.engine is None or isinstance(facts.engine, ScriptedSettings):
        return
    yield from _about(facts, "model") or [ok("model", f"{facts.engine.model} is on this device, and sound")]
    available_mb = facts.memory.available_mb
    text = f"about {facts.need_mb} MB needed, {available_mb} of {facts.memory.total_mb} MB available"
    if facts.need_mb <= available_mb * COMFORTABLE:
        yield ok("memory", text)
    else:
        remedy = "choose a smaller model: tiny.en-q4_0 needs about 136 MB"
        yield (fail if facts.need_mb > available_mb else warn)("memory", text, remedy)


def microphone(facts: Facts) -> Iterator[Finding]:
    """Report whether the source can be opened. The service may have it open."""
    source, busy = source_name(facts.loaded.settings), isinstance(facts.source_problem, DeviceBusy)
    if missing := _about(facts, "source"):
        yield from missing
    elif busy and _service_says(facts).startswith("listening to"):
        yield ok("source", f"{source} is in use by the service")
    elif facts.source_problem:
        yield (warn if busy else fail)("source", str(facts.source_problem))
    else:
        yield ok("source", f"{source} can be opened")


def muted(facts: Facts) -> Iterator[Finding]:
    """Report a muted device. A user who may not read the state folder learns it from the service."""
    found = _about(facts, "muted")
    if found or _service_says(facts).startswith("mute"):
        text = found[0].text if found else "muted by a command"
        yield warn("muted", text, "publish ON on edgescribe/v1/<id>/cmd/listen")


def _service_says(facts: Facts) -> str:
    return facts.service.status if facts.service and facts.service.active in RUNS else ""


def broker(facts: Facts) -> Iterator[Finding]:
    """Report whether it answers."""
    mqtt, name = facts.loaded.settings.mqtt, broker_name(facts.loaded.settings)
    if not mqtt.enabled:
        return
    if facts.broker_problem:
        here = mqtt.host in LOCAL_HOSTS
        start = "`sudo apt install mosquitto`, `sudo systemctl start mosquitto`" if here else "start it"
        yield fail("broker", f"{name}: {facts.broker_problem}", f"{start}, or correct mqtt.host and mqtt.port")
    else:
        yield ok("broker", f"{name} answers")


def clock(facts: Facts) -> Iterator[Finding]:
    """Report whether it is synchronised. If not, messages say that their times cannot be trusted: only a warning."""
    if facts.clock_synced:
        yield ok("clock", "synchronised")
    else:
        remedy = "`sudo timedatectl set-ntp true`; without a time service, `sudo apt install systemd-timesyncd` first"
        yield warn("clock", "not synchronised", remedy)


def state(facts: Facts) -> Iterator[Finding]:
    """Report whether there is room for models and queues."""
    folder, free_mb = facts.state_dir, facts.state_free_mb
    if facts.state_problem:
        remedy = f"give the user of the service {folder}, or set state_dir"
        yield fail("state folder", f"{folder}: {facts.state_problem}", remedy)
    elif free_mb < LEAST_FREE_MB:
        yield warn("state folder", f"{folder} has {free_mb} MB left", f"free {LEAST_FREE_MB} MB, or set state_dir")
    else:
        yield ok("state folder", f"{folder}, {free_mb / 1024:.0f} GB free")


def storage(facts: Facts) -> Iterator[Finding]:
    """Report whether the medium is reliable."""
    if (medium := facts.storage) is None:
        return
    name = f"{medium.device}, {medium.file_system}"
    check = "check it (`fsck`) at the next boot, or replace the card"
    if medium.read_only:
        yield fail("storage", f"{name}, is mounted read-only", f"see `dmesg` for why; {check}")
    elif medium.errors:
        yield warn("storage", f"{name}, has recorded {medium.errors} errors", f"back it up; {check}")
    elif (medium.wear_pct or 0) >= WORN_PCT:
        yield warn("storage", f"{name}, has used up {medium.wear_pct} % of its life", "back it up, and replace it soon")
    elif medium.file_system in {"tmpfs", "ramfs"}:
        text = f"{name}: a power cut loses the messages that wait for the broker"
        yield warn("storage", text, "set state_dir to a folder on a medium")
    else:
        yield ok("storage", name + (f", {medium.wear_pct} % worn" if medium.wear_pct else ""))


def swap(facts: Facts) -> Iterator[Finding]:
    """Warn if memory is short and much is swapped. `model` reports the need of the model."""
    memory = facts.memory
    if memory.swapped_pct >= SWAPPING_PCT and memory.available_mb < memory.total_mb * SCARCE:
        left = f"{memory.available_mb} of {memory.total_mb} MB are available"
        remedy = "choose a smaller model, or stop other programs (`ps aux --sort=-rss | head`)"
        yield warn("swap", f"{left}, and {memory.swapped_pct:.0f} % of the swap is used", remedy)


def service(facts: Facts) -> Iterator[Finding]:
    """Report whether an installed unit runs, which devices it may open, and whether its limits hold."""
    if (unit := facts.service) is None:
        return
    text = f"{unit.active}, {unit.restarts} restarts"
    if unit.active in RUNS:
        yield ok("service", text)
    else:
        yield fail("service", text, "journalctl -u edgescribe -e; systemctl restart edgescribe")
    if facts.exposure is not None:
        touches = f"of /dev it may open {', '.join(unit.devices)}" if unit.devices else "it may open every device"
        text = f"exposure {facts.exposure:g} of 10; {touches}"
        if facts.exposure <= LOOSE and unit.devices:
            yield ok("sandbox", text)
        else:
            remedy = "see `systemctl cat edgescribe` for drop-ins, and `systemd-analyze security edgescribe`"
            yield warn("sandbox", text, remedy)
    if not facts.memory_limited:
        file = facts.kernel_command_line or "the command line of the kernel"
        remedy = f"add `cgroup_enable=memory` to {file}, and reboot"
        yield warn("memory limit", "this kernel leaves it out: MemoryMax= has no effect", remedy)


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    *(machine, settings, whisper_cpp, ctranslate2, calibration, model, microphone, muted, broker, clock, state),
    *(storage, swap, service),
)
