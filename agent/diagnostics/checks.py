"""Judgements about a machine: pure functions from what was found to what should be said about it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.diagnostics.finding import Finding, Status
from agent.install.extras import Installation
from agent.models.catalogue import memory_need_mb

LEAST_FREE_MB: Final = 500
"""Room for a model that is being pulled and quantised, and for a queue."""
COMFORTABLE: Final = 0.8
"""Share of the available memory that the agent may need before it is said."""


@dataclass(frozen=True, slots=True)
class CTranslate2Build:
    """What the installed CTranslate2 can do."""

    version: str
    compute_types: tuple[str, ...]
    """On this CPU."""
    cuda_devices: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that the settings name."""

    name: str
    ctranslate2: bool
    size: str
    """Whisper's size class; empty for a user's own file."""
    size_bytes: int
    problem: str
    """Why it cannot be used; empty if it can."""


@dataclass(frozen=True, slots=True)
class AutoFacts:
    """What `engine.kind = "auto"` comes to."""

    engine: str
    """Kind, model and threads of what is used; empty if nothing can be."""
    problem: str
    """What is not as it should be, with its remedy; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. An empty problem means that there is none."""

    hardware: str
    arch: str
    os: str
    cores: int
    memory_total_mb: int
    memory_available_mb: int
    cpu_features: frozenset[str]
    """As /proc/cpuinfo spells them."""
    gpu: bool
    """An NVIDIA GPU that its driver shows."""
    settings_problem: str
    engine: str
    """Kind of engine that is used."""
    whisper_cpp: str | None
    """whisper.cpp's own line about its build; None if it cannot be imported."""
    whisper_cpp_for: str
    """CPU class that its wheel was built for; empty if it does not say, as the index's wheel."""
    whisper_cpp_refusal: str
    """Why it must not be imported: it was built for another CPU. Empty if it may."""
    ctranslate2: CTranslate2Build | None
    """None if it is not installed."""
    model: ModelFacts | None
    """None for an engine without one."""
    source: str
    source_problem: str
    """Brings its own remedy."""
    broker: str | None
    """`host:port`; None if MQTT is off."""
    broker_problem: str
    clock_synced: bool
    state_dir: Path
    state_problem: str
    state_free_mb: int
    installation: Installation
    """Into which what is missing belongs."""
    auto: AutoFacts | None = None
    """None where the settings name the engine themselves."""
    source_busy: bool = False
    """The problem is that something else has the microphone open."""
    service_says: str = ""
    """What the service says that it is doing; empty where none runs."""
    muted: str = ""
    """Why the microphone stays closed, where a command has closed it."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Everything there is to say, in the order in which one would look."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def machine(facts: Facts) -> Iterator[Finding]:
    """What it is."""
    known = [CPU_FEATURES[name] for name in CPU_FEATURES if name in facts.cpu_features]
    text = (
        f"{facts.hardware}, {facts.arch}, {facts.cores} cores, {facts.memory_total_mb / 1024:.1f} GB, "
        f"{facts.os}; CPU: {', '.join(known) or 'nothing that speeds inference up'}"
    )
    yield Finding(Status.OK, "machine", text)


def settings(facts: Facts) -> Iterator[Finding]:
    """Whether they can be read, and the agent can start with them."""
    if facts.settings_problem:
        for line in facts.settings_problem.splitlines():
            yield Finding(Status.FAIL, "settings", line, "correct it, then run `edgescribe check`")
    else:
        yield Finding(Status.OK, "settings", "readable")


def whisper_cpp(facts: Facts) -> Iterator[Finding]:
    """What its build can use, and what of this CPU it leaves unused."""
    if facts.whisper_cpp_refusal:
        status = Status.FAIL if facts.engine == "whisper_cpp" else Status.WARN
        yield Finding(status, "whisper.cpp", facts.whisper_cpp_refusal)
        return
    if facts.whisper_cpp is None:
        if facts.engine == "whisper_cpp":
            remedy = facts.installation.again("pywhispercpp")
            yield Finding(Status.FAIL, "whisper.cpp", "cannot be imported", remedy)
        return
    built_with = build_features(facts.whisper_cpp)
    used = f"built for {facts.whisper_cpp_for or 'any CPU'}, with {', '.join(sorted(built_with)) or 'nothing special'}"
    unused = [name for name, needs in WORTH_A_BUILD.items() if needs & facts.cpu_features and name not in built_with]
    if unused:
        gain = ": half the instructions with q8_0 or q4_0" if "DOTPROD" in unused else ""
        yield Finding(
            Status.WARN,
            "whisper.cpp",
            f"{used}; this CPU could also do {', '.join(unused)}{gain}",
            f"install from wheelhouse/{facts.arch}-{_wheelhouse(facts)} (docs/wheelhouse.md), or build it here: "
            f"{facts.installation.again('pywhispercpp', '--no-binary', 'pywhispercpp')}; "
            'or set engine.kind = "faster_whisper", which chooses at run time',
        )
    else:
        yield Finding(Status.OK, "whisper.cpp", used)


def ctranslate2(facts: Facts) -> Iterator[Finding]:
    """Whether it is there, and whether it sees the GPU."""
    build = facts.ctranslate2
    if build is None:
        status = Status.FAIL if facts.engine == "faster_whisper" else Status.OK
        remedy = facts.installation.with_extra("faster-whisper") if status is Status.FAIL else ""
        yield Finding(status, "CTranslate2", "not installed (faster_whisper needs it)", remedy)
    elif facts.gpu and not build.cuda_devices:
        yield Finding(
            Status.WARN,
            "CTranslate2",
            f"{build.version} does not see the GPU: the package index has no CUDA build of it for {facts.arch}",
            "build CTranslate2 from source with -DWITH_CUDA=ON -DWITH_CUDNN=ON, or stay on the CPU",
        )
    else:
        gpu = f", {build.cuda_devices} GPU" if build.cuda_devices else ""
        yield Finding(Status.OK, "CTranslate2", f"{build.version}: {', '.join(build.compute_types)}{gpu}")


def calibration(facts: Facts) -> Iterator[Finding]:
    """What it has chosen, and whether that still holds."""
    if facts.auto is None:
        return
    if facts.auto.problem:
        yield Finding(Status.WARN if facts.auto.engine else Status.FAIL, "calibration", facts.auto.problem)
    else:
        yield Finding(Status.OK, "calibration", f"chose {facts.auto.engine}")


def model(facts: Facts) -> Iterator[Finding]:
    """Whether it is here, sound, and small enough."""
    if facts.model is None:
        return
    if facts.model.problem:
        yield Finding(Status.FAIL, "model", facts.model.problem, _pull(facts.model))
    else:
        yield Finding(Status.OK, "model", f"{facts.model.name} is here, and is what it should be")
    yield _memory(facts, memory_need_mb(facts.model.size, facts.model.size_bytes, ctranslate2=facts.model.ctranslate2))


def microphone(facts: Facts) -> Iterator[Finding]:
    """Whether sound can be had. What the service has open for itself is as it should be."""
    if facts.source_busy and facts.service_says.startswith("listening to"):
        yield Finding(Status.OK, "source", f"{facts.source} is in use by the service")
    elif facts.source_busy:
        yield Finding(Status.WARN, "source", facts.source_problem)
    elif facts.source_problem:
        yield Finding(Status.FAIL, "source", facts.source_problem)
    else:
        yield Finding(Status.OK, "source", f"{facts.source} can be opened")


def muted(facts: Facts) -> Iterator[Finding]:
    """Whether it was told not to listen. The service says so, too, to those who may not read its state folder."""
    if reason := facts.muted or ("muted by a command" if facts.service_says.startswith("mute") else ""):
        yield Finding(Status.WARN, "muted", reason, "publish ON on edgescribe/v1/<id>/cmd/listen")


def broker(facts: Facts) -> Iterator[Finding]:
    """Whether anybody answers there."""
    if facts.broker is None:
        return
    if facts.broker_problem:
        host = facts.broker.rpartition(":")[0]
        start = "`sudo apt install mosquitto`, `sudo systemctl start mosquitto`" if host in _HERE else "start it"
        remedy = f"{start}, or correct mqtt.host and mqtt.port"
        yield Finding(Status.FAIL, "broker", f"{facts.broker}: {facts.broker_problem}", remedy)
    else:
        yield Finding(Status.OK, "broker", f"{facts.broker} answers")


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether the times in the messages can be trusted. Not a failure: messages say whether they can."""
    if facts.clock_synced:
        yield Finding(Status.OK, "clock", "synchronised")
    else:
        yield Finding(
            Status.WARN,
            "clock",
            "not synchronised",
            _SET_CLOCK,
        )


def state(facts: Facts) -> Iterator[Finding]:
    """Whether models and queues can be kept."""
    if facts.state_problem:
        remedy = f"give the user of the service {facts.state_dir}, or set state_dir"
        yield Finding(Status.FAIL, "state folder", f"{facts.state_dir}: {facts.state_problem}", remedy)
    elif facts.state_free_mb < LEAST_FREE_MB:
        text = f"{facts.state_dir} has {facts.state_free_mb} MB left"
        yield Finding(Status.WARN, "state folder", text, f"free {LEAST_FREE_MB} MB, or set state_dir")
    else:
        yield Finding(Status.OK, "state folder", f"{facts.state_dir}, {facts.state_free_mb / 1024:.0f} GB free")


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    machine,
    settings,
    whisper_cpp,
    ctranslate2,
    calibration,
    model,
    microphone,
    muted,
    broker,
    clock,
    state,
)

_HERE: Final = ("localhost", "127.0.0.1", "[::1]")
_SET_CLOCK: Final = (
    "`sudo timedatectl set-ntp true`; where there is no time service, `sudo apt install systemd-timesyncd` before that"
)

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


def build_features(system_info: str) -> frozenset[str]:
    """The names that whisper.cpp's system info line has at 1: `AVX = 1 | AVX2 = 1 | OPENMP = 1`."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info))


def _wheelhouse(facts: Facts) -> str:
    """The CPU class that suits this CPU best."""
    return "cortex-a76" if WORTH_A_BUILD["DOTPROD"] | WORTH_A_BUILD["FP16_VA"] <= facts.cpu_features else "native"


def _memory(facts: Facts, need_mb: int) -> Finding:
    text = f"about {need_mb} MB needed, {facts.memory_available_mb} of {facts.memory_total_mb} MB available"
    remedy = "choose a smaller model: tiny.en-q4_0 needs about 136 MB"
    if need_mb > facts.memory_available_mb:
        return Finding(Status.FAIL, "memory", text, remedy)
    if need_mb > facts.memory_available_mb * COMFORTABLE:
        return Finding(Status.WARN, "memory", text, remedy)
    return Finding(Status.OK, "memory", text)


def _pull(wanted: ModelFacts) -> str:
    """The store's own messages name the command where pulling helps; size tells whether the catalogue knows it."""
    return "" if "`" in wanted.problem or not wanted.size else f"edgescribe models pull {wanted.name}"
