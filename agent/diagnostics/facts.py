"""Looks at this machine for `checks`: all that touches files, devices, libraries and the network."""

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.asr import cpu
from agent.config.commanded import commanded
from agent.config.layers import Loaded, models_dir, state_dir
from agent.config.settings import AlsaSettings, EngineSettings, ScriptedSettings, Settings, SourceSettings
from agent.diagnostics.configuration import file_problem
from agent.errors import AgentError, ConfigError, InstallError, ModelError, SourceError
from agent.install import extras, systemctl
from agent.messages import identity
from agent.models import ModelFormat
from agent.models.catalogue import load_catalogue, memory_need_mb
from agent.models.files import nearest_folder
from agent.models.selection import chosen_model, format_for, resolve
from agent.models.store import Store
from agent.telemetry.host import wear_pct

CONNECT_S: Final = 2.0
_COMMAND_LINES: Final = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
_GPU: Final = ("proc/driver/nvidia/version", "dev/nvhost-gpu", "dev/nvgpu")
"""What NVIDIA's driver shows: on a PC, or on a Jetson."""


@dataclass(frozen=True, slots=True)
class CTranslate2Build:
    """What the installed CTranslate2 can do."""

    version: str
    compute_types: tuple[str, ...]
    """On this CPU."""
    cuda_devices: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that is used."""

    name: str
    in_catalogue: bool
    need_mb: int
    """Memory that the agent takes with it."""
    problem: str
    """Why it cannot be used; empty if it can."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How much there is."""

    total_mb: int
    available_mb: int
    swapped_pct: float = 0.0
    """Of the swap space that is used, 0-100; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What the kernel says of the medium below the state folder."""

    device: str
    """Such as `/dev/mmcblk0p2`."""
    file_system: str
    """Such as `ext4`."""
    read_only: bool
    errors: int | None
    """That ext4 has recorded since the last check; None for other file systems."""
    wear_pct: int | None
    """Of an eMMC's life; None for what does not tell, as SD cards do not."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. An empty problem means that there is none."""

    loaded: Loaded
    """The settings; the defaults where they cannot be read."""
    settings_problem: str
    """Why they cannot be read."""
    machine: identity.Machine
    cores: int
    memory: Memory
    cpu_features: frozenset[str]
    """As /proc/cpuinfo spells them."""
    gpu: bool
    """An NVIDIA GPU that its driver shows."""
    engine: EngineSettings | None
    """What is used; None if nothing can be."""
    engine_problem: str
    """What is not as it should be with what the calibration has chosen, with its remedy."""
    model: ModelFacts | None
    """None for an engine without one."""
    whisper_cpp: str | None
    """whisper.cpp's own line about its build; None if it cannot be imported."""
    whisper_cpp_for: str
    """CPU class that its wheel was built for; empty if it does not say, as the index's wheel."""
    whisper_cpp_refusal: str
    """Why it must not be imported: it was built for another CPU. Empty if it may."""
    ctranslate2: CTranslate2Build | None
    """None if it is not installed."""
    installation: extras.Installation
    """Into which what is missing belongs."""
    source_problem: AgentError | None
    """Brings its own remedy."""
    broker_problem: str
    clock_synced: bool
    state_dir: Path
    state_problem: str
    state_free_mb: int
    storage: Storage | None = None
    """None if the kernel does not say."""
    service: systemctl.Condition | None = None
    """None where there is no systemd, or no such unit."""
    exposure: float | None = None
    """Of the service: 0 to 10, by `systemd-analyze security`; None if that cannot be asked."""
    memory_limited: bool = True
    """Whether the kernel has the memory controller, without which `MemoryMax=` has no effect."""
    kernel_command_line: str = ""
    """File with the kernel's command line, where the boot loader is a Raspberry Pi's; else empty."""
    muted: str = ""
    """Why the microphone stays closed, where a command has closed it."""


def look(loaded: Loaded, settings_problem: str = "", root: Path = Path("/")) -> Facts:
    """Find everything out; takes a few seconds if the broker does not answer."""
    settings = loaded.settings
    folder, mqtt = state_dir(settings), settings.mqtt
    machine, features, built = identity.describe(root), cpu.features(root), cpu.built_for("pywhispercpp")
    refusal = cpu.refusal(built, features, machine.arch)
    engine, engine_problem = _engine(settings)
    service = _service()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    return Facts(
        loaded=loaded,
        settings_problem=settings_problem,
        machine=machine,
        cores=len(os.sched_getaffinity(0)),
        memory=Memory(memory.total >> 20, memory.available >> 20, float(swap.percent)),
        cpu_features=features,
        gpu=has_gpu(root),
        engine=engine,
        engine_problem=engine_problem,
        model=model_facts(settings, engine) if engine else None,
        whisper_cpp=None if refusal else whisper_cpp_build(),
        whisper_cpp_for=built.cpu if built else "",
        whisper_cpp_refusal=refusal,
        ctranslate2=ctranslate2_build(),
        installation=extras.here(),
        source_problem=source_problem(settings.source),
        broker_problem=connect_problem(mqtt.host, mqtt.effective_port) if mqtt.enabled else "",
        clock_synced=identity.time_synced(root),
        state_dir=folder,
        state_problem=write_problem(folder),
        state_free_mb=shutil.disk_usage(nearest_folder(folder)).free >> 20,
        storage=storage_below(folder.absolute(), root),
        service=service,
        exposure=systemctl.exposure() if service else None,
        memory_limited=controllers.exists() and "memory" in controllers.read_text(encoding="ascii").split(),
        kernel_command_line=next((path for path in _COMMAND_LINES if (root / path.lstrip("/")).exists()), ""),
        muted=commanded(settings).muted,
    )


def has_gpu(root: Path) -> bool:
    """Whether NVIDIA's driver shows a GPU."""
    return any((root / path).exists() for path in _GPU)


def whisper_cpp_build() -> str | None:
    """whisper.cpp's line about itself; None if it cannot be imported."""
    try:
        import _pywhispercpp  # noqa: PLC0415 - whether it can be imported is the question
    except ImportError:
        return None
    return str(_pywhispercpp.whisper_print_system_info())


def ctranslate2_build() -> CTranslate2Build | None:
    """What CTranslate2 says about itself; None if it cannot be imported."""
    try:
        import ctranslate2  # noqa: PLC0415 - likewise
    except ImportError:
        return None
    types = sorted(ctranslate2.get_supported_compute_types("cpu"))
    return CTranslate2Build(ctranslate2.__version__, tuple(types), ctranslate2.get_cuda_device_count())


def model_facts(settings: Settings, engine: EngineSettings) -> ModelFacts | None:
    """The model of `engine`, and what is wrong with it."""
    if isinstance(engine, ScriptedSettings):
        return None
    catalogue = load_catalogue()
    problem, size, size_bytes = "", "", 0
    try:
        path = chosen_model(engine, Store(models_dir(settings), catalogue))
        size_bytes = path.stat().st_size if path and path.is_file() else 0
    except ModelError as error:
        problem = str(error)
    if engine.model in catalogue:
        entry = catalogue.find(engine.model)
        size, size_bytes = entry.size.removesuffix(".en"), entry.size_bytes
    need_mb = memory_need_mb(size, size_bytes, ctranslate2=format_for(engine) is ModelFormat.CTRANSLATE2)
    return ModelFacts(engine.model, engine.model in catalogue, need_mb, problem)


def source_problem(source: SourceSettings) -> AgentError | None:
    """Why there is no sound to be had; None if there is."""
    if not isinstance(source, AlsaSettings):
        problem = file_problem(source.path)
        return SourceError(f"source.path: {source.path} {problem}") if problem else None
    from agent.audio.alsa import AlsaSource  # noqa: PLC0415 - a recording needs no libasound

    try:
        AlsaSource(source).close()
    except (SourceError, ConfigError) as error:
        return error
    return None


def connect_problem(host: str, port: int, timeout_s: float = CONNECT_S) -> str:
    """Why there is no connection by TCP; empty if there is."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError as error:
        return (error.strerror or str(error) or type(error).__name__).lower()
    return ""


def write_problem(folder: Path) -> str:
    """Why nothing can be written into `folder`, or where it would be made; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def storage_below(folder: Path, root: Path = Path("/")) -> Storage | None:
    """The file system that `folder` lies on; None if the kernel does not say."""
    try:
        lines = (root / "proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    mounts = [line.split() for line in lines]
    below = [mount for mount in mounts if len(mount) > 3 and folder.is_relative_to(_unescaped(mount[1]))]  # noqa: PLR2004
    if not below:
        return None
    # The longest path is the nearest; of two mounted on the same one the later covers the earlier.
    device, _, file_system, options, *_ = max(reversed(below), key=lambda mount: len(mount[1]))
    counted = root / "sys/fs/ext4" / Path(device).name / "errors_count"
    errors = int(counted.read_text(encoding="ascii")) if counted.exists() else None
    return Storage(device, file_system, "ro" in options.split(","), errors, wear_pct(root))


def _unescaped(path: str) -> str:
    r"""A path of /proc/mounts, in which a blank is `\040`."""
    return path.encode().decode("unicode_escape") if "\\" in path else path


def _engine(settings: Settings) -> tuple[EngineSettings | None, str]:
    """The engine that is used, None if nothing can be; and what is not as it should be."""
    try:
        resolved = resolve(settings)
    except ModelError as error:
        return None, str(error)
    return resolved.engine, resolved.warning


def _service() -> systemctl.Condition | None:
    try:
        service = systemctl.condition()
    except InstallError:  # there is no systemd
        return None
    return service if service.loaded else None
