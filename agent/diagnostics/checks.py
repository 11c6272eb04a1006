"""Judgements about a machine: pure functions from what was found to what should be said about it."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from agent.config.settings import AutoSettings
from agent.diagnostics import Finding, Status
from agent.diagnostics.configuration import LOCAL_HOSTS, advice, problems
from agent.diagnostics.facts import Facts
from agent.errors import DeviceBusy
from agent.models.selection import in_words
from agent.telemetry.naming import broker_name, source_name

ok, warn, fail = (partial(Finding, status) for status in (Status.OK, Status.WARN, Status.FAIL))

LEAST_FREE_MB: Final = 500
"""Room for a model that is being pulled and quantised, and for a queue."""
COMFORTABLE: Final = 0.8
"""Share of the available memory that the agent may need before it is said."""
SWAPPING_PCT: Final = 50.0
SCARCE: Final = 0.1
"""Of the memory; less is scarce."""
WORN_PCT: Final = 90
LOOSE: Final = 2.0
"""The unit as it is delivered is at 1.6 or below, and with any of its drop-ins below 2."""
RUNS: Final = ("active", "activating", "reloading")
CPU_FEATURES: Final = {
    "asimddp": "dot product",
    "fphp": "fp16",
    "i8mm": "int8 matrices",
    "avx2": "AVX2",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
}
"""Of the names in /proc/cpuinfo those that matter to inference, in words."""
WORTH_A_BUILD: Final = {
    "DOTPROD": frozenset({"asimddp"}),
    "FP16_VA": frozenset({"fphp", "asimdhp"}),
    "AVX2": frozenset({"avx2"}),
    "AVX512_VNNI": frozenset({"avx512_vnni"}),
}
"""Names in whisper.cpp's system info, and the CPU features that they use. A Pi 5 and a Jetson Orin have the first two;
the public wheel for aarch64 uses neither (q8_0: 8.5 G instructions for 11 s of speech, against 3.9 G with both)."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Everything there is to say, in the order in which one would look."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def machine(facts: Facts) -> Iterator[Finding]:
    """What it is."""
    known = [words for name, words in CPU_FEATURES.items() if name in facts.cpu_features]
    here = facts.machine
    yield ok(
        "machine",
        f"{here.hardware or 'unknown board'}, {here.arch}, {facts.cores} cores, {facts.memory.total_mb / 1024:.1f} GB, "
        f"{here.os or 'unknown system'}; CPU: {', '.join(known) or 'nothing that speeds inference up'}",
    )


def settings(facts: Facts) -> Iterator[Finding]:
    """Whether they can be read, the agent can start with them, and they are what one would want."""
    remedy = "correct it, then run `edgescribe check`"
    wrong = facts.settings_problem.splitlines() or problems(facts.loaded, parts=False, model=False)
    yield from (fail("settings", line, remedy) for line in wrong)
    if not wrong:
        yield ok("settings", "readable")
    yield from (warn("settings", line, remedy) for line in advice(facts.loaded, parts=False))


def whisper_cpp(facts: Facts) -> Iterator[Finding]:
    """What its build can use, and what of this CPU it leaves unused."""
    wanted = facts.engine is not None and facts.engine.kind == "whisper_cpp"
    if facts.whisper_cpp_refusal:
        yield (fail if wanted else warn)("whisper.cpp", facts.whisper_cpp_refusal)
        return
    if facts.whisper_cpp is None:
        if wanted:
            yield fail("whisper.cpp", "cannot be imported", facts.installation.again("pywhispercpp"))
        return
    has = facts.cpu_features
    built_with = build_features(facts.whisper_cpp)
    used = f"built for {facts.whisper_cpp_for or 'any CPU'}, with {', '.join(sorted(built_with)) or 'nothing special'}"
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
        f"{facts.installation.again('pywhispercpp', '--no-binary', 'pywhispercpp')}; "
        'or set engine.kind = "faster_whisper", which chooses at run time',
    )


def build_features(system_info: str) -> frozenset[str]:
    """The names that whisper.cpp's system info line has at 1: `AVX = 1 | AVX2 = 1 | OPENMP = 1`."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info))


def ctranslate2(facts: Facts) -> Iterator[Finding]:
    """Whether it is there, and whether it sees the GPU."""
    build = facts.ctranslate2
    if build is None:
        wanted = facts.engine is not None and facts.engine.kind == "faster_whisper"
        remedy = facts.installation.with_extra("faster-whisper") if wanted else ""
        yield (fail if wanted else ok)("CTranslate2", "not installed (faster_whisper needs it)", remedy)
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
    """What it has chosen, and whether that still holds."""
    if not isinstance(facts.loaded.settings.engine, AutoSettings):
        return
    if facts.engine_problem:
        yield (warn if facts.engine else fail)("calibration", facts.engine_problem)
    elif facts.engine:
        yield ok("calibration", f"chose {in_words(facts.engine)}")


def model(facts: Facts) -> Iterator[Finding]:
    """Whether it is here, sound, and small enough."""
    if (wanted := facts.model) is None:
        return
    if wanted.problem:
        # The store's own messages name the command where pulling helps.
        pull = "" if "`" in wanted.problem or not wanted.in_catalogue else f"edgescribe models pull {wanted.name}"
        yield fail("model", wanted.problem, pull)
    else:
        yield ok("model", f"{wanted.name} is here, and is what it should be")
    available_mb = facts.memory.available_mb
    text = f"about {wanted.need_mb} MB needed, {available_mb} of {facts.memory.total_mb} MB available"
    if wanted.need_mb <= available_mb * COMFORTABLE:
        yield ok("memory", text)
    else:
        remedy = "choose a smaller model: tiny.en-q4_0 needs about 136 MB"
        yield (fail if wanted.need_mb > available_mb else warn)("memory", text, remedy)


def microphone(facts: Facts) -> Iterator[Finding]:
    """Whether sound can be had. What the service has open for itself is as it should be."""
    source, busy = source_name(facts.loaded.settings), isinstance(facts.source_problem, DeviceBusy)
    if busy and _service_says(facts).startswith("listening to"):
        yield ok("source", f"{source} is in use by the service")
    elif facts.source_problem:
        yield (warn if busy else fail)("source", str(facts.source_problem))
    else:
        yield ok("source", f"{source} can be opened")


def muted(facts: Facts) -> Iterator[Finding]:
    """Whether it was told not to listen. The service says so, too, to those who may not read its state folder."""
    if reason := facts.muted or ("muted by a command" if _service_says(facts).startswith("mute") else ""):
        yield warn("muted", reason, "publish ON on edgescribe/v1/<id>/cmd/listen")


def _service_says(facts: Facts) -> str:
    return facts.service.status if facts.service and facts.service.active in RUNS else ""


def broker(facts: Facts) -> Iterator[Finding]:
    """Whether anybody answers there."""
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
    """Whether the times in the messages can be trusted. Not a failure: messages say whether they can."""
    if facts.clock_synced:
        yield ok("clock", "synchronised")
    else:
        remedy = "`sudo timedatectl set-ntp true`; where there is no time service, `sudo apt install systemd-timesyncd`"
        yield warn("clock", "not synchronised", f"{remedy} before that")


def state(facts: Facts) -> Iterator[Finding]:
    """Whether models and queues can be kept."""
    folder, free_mb = facts.state_dir, facts.state_free_mb
    if facts.state_problem:
        remedy = f"give the user of the service {folder}, or set state_dir"
        yield fail("state folder", f"{folder}: {facts.state_problem}", remedy)
    elif free_mb < LEAST_FREE_MB:
        yield warn("state folder", f"{folder} has {free_mb} MB left", f"free {LEAST_FREE_MB} MB, or set state_dir")
    else:
        yield ok("state folder", f"{folder}, {free_mb / 1024:.0f} GB free")


def storage(facts: Facts) -> Iterator[Finding]:
    """Whether the medium can be relied on."""
    if (medium := facts.storage) is None:
        return
    what = f"{medium.device}, {medium.file_system}"
    check = "check it (`fsck`) at the next boot, or replace the card"
    if medium.read_only:
        yield fail("storage", f"{what}, is mounted read-only", f"see `dmesg` for why; {check}")
    elif medium.errors:
        yield warn("storage", f"{what}, has recorded {medium.errors} errors", f"back it up; {check}")
    elif (medium.wear_pct or 0) >= WORN_PCT:
        yield warn("storage", f"{what}, has used up {medium.wear_pct} % of its life", "back it up, and replace it soon")
    elif medium.file_system in {"tmpfs", "ramfs"}:
        text = f"{what}: what waits for the broker is lost with the power"
        yield warn("storage", text, "set state_dir to a folder on a medium")
    else:
        yield ok("storage", what + (f", {medium.wear_pct} % worn" if medium.wear_pct else ""))


def swap(facts: Facts) -> Iterator[Finding]:
    """Only what is wrong: how much the model needs is said elsewhere."""
    memory = facts.memory
    if memory.swapped_pct >= SWAPPING_PCT and memory.available_mb < memory.total_mb * SCARCE:
        left = f"{memory.available_mb} of {memory.total_mb} MB are available"
        remedy = "choose a smaller model, or stop what else runs here (`ps aux --sort=-rss | head`)"
        yield warn("swap", f"{left}, and {memory.swapped_pct:.0f} % of the swap is used", remedy)


def service(facts: Facts) -> Iterator[Finding]:
    """The unit, if it is installed: does it run, what may it touch, and do its limits hold?"""
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
        where = facts.kernel_command_line or "the command line of the kernel"
        remedy = f"add `cgroup_enable=memory` to {where}, and reboot"
        yield warn("memory limit", "this kernel leaves it out: MemoryMax= has no effect", remedy)


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    *(machine, settings, whisper_cpp, ctranslate2, calibration, model, microphone, muted, broker, clock, state),
    *(storage, swap, service),
)
