"""Looks at this machine for `checks`: everything that touches files, devices, libraries and the network."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.asr import cpu
from agent.audio.alsa import AlsaSource
from agent.config.layers import Loaded, state_dir
from agent.config.settings import AlsaSettings, EngineSettings, ScriptedSettings, SourceSettings
from agent.diagnostics import Finding
from agent.diagnostics.configuration import findings, wrong_settings
from agent.errors import AgentError, ConfigError, InstallError, ModelError, SourceError
from agent.install import systemctl
from agent.messages import identity
from agent.models import ModelFormat
from agent.models.catalogue import load_catalogue, memory_need_mb
from agent.models.files import nearest_folder
from agent.models.selection import format_for, resolve
from agent.telemetry.host import wear_pct

CONNECT_S: Final = 2.0
_COMMAND_LINES: Final = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
_GPU: Final = ("proc/driver/nvidia/version", "dev/nvhost-gpu", "dev/nvgpu")
"""Files of NVIDIA's driver, on a PC or on a Jetson."""


@dataclass(frozen=True, slots=True)
class CTranslate2Build:
    """Abilities of the installed CTranslate2."""

    version: str
    compute_types: tuple[str, ...]
    """On this CPU."""
    cuda_devices: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the machine."""

    total_mb: int
    available_mb: int
    swapped_pct: float = 0.0
    """Used part of the swap space, 0-100; 0 without any."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The medium below the state folder, by the kernel's word."""

    device: str
    """Such as `/dev/mmcblk0p2`."""
    file_system: str
    """Such as `ext4`."""
    read_only: bool
    errors: int | None
    """Errors that ext4 has recorded since the last check; None for other file systems."""
    wear_pct: int | None
    """Used part of an eMMC's life; None if the medium does not tell: SD cards do not."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks judge. An empty problem means that there is none."""

    loaded: Loaded
    """The settings; the defaults if they cannot be read."""
    configuration: tuple[Finding, ...]
    """Findings about the settings."""
    machine: identity.Machine
    cores: int
    memory: Memory
    cpu_features: frozenset[str]
    """As /proc/cpuinfo spells them."""
    gpu: bool
    """There is an NVIDIA GPU, with its driver."""
    engine: EngineSettings | None
    """The engine that the agent would use; None if none can be used."""
    need_mb: int
    """Memory that the agent needs with its model; 0 for an engine without one."""
    whisper_cpp: str | None
    """whisper.cpp's own line about its build; None if it cannot be imported."""
    whisper_cpp_for: str
    """CPU class that its wheel was built for; empty if it does not say, as the index's wheel."""
    whisper_cpp_refusal: str
    """Why it must not be imported: it was built for another CPU. Empty if it may."""
    ctranslate2: CTranslate2Build | None
    """None if it is not installed."""
    source_problem: AgentError | None
    """Why the microphone cannot be opened, with the remedy."""
    broker_problem: str
    clock_synced: bool
    state_dir: Path
    state_problem: str
    state_free_mb: int
    storage: Storage | None = None
    """None if the kernel does not say."""
    service: systemctl.Condition | None = None
    """None without systemd, or without such a unit."""
    exposure: float | None = None
    """Of the service: 0 to 10, by `systemd-analyze security`; None if that cannot be asked."""
    memory_limited: bool = True
    """The kernel has the memory controller, without which `MemoryMax=` has no effect."""
    kernel_command_line: str = ""
    """File with the kernel's command line, if the boot loader is a Raspberry Pi's; else empty."""


def look(loaded: Loaded, settings_problem: str = "", root: Path = Path("/")) -> Facts:
    """Find everything out. Takes a few seconds if the broker does not answer."""
    settings = loaded.settings
    folder, mqtt = state_dir(settings), settings.mqtt
    machine, features, built = identity.describe(root), cpu.features(root), cpu.built_for("pywhispercpp")
    refusal = cpu.refusal(built, features, machine.arch)
    engine: EngineSettings | None = None
    with suppress(ModelError):  # `findings` reports it
        engine = resolve(settings).engine
    service = _service()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    return Facts(
        loaded=loaded,
        configuration=(*wrong_settings(settings_problem), *findings(loaded)),
        machine=machine,
        cores=len(os.sched_getaffinity(0)),
        memory=Memory(memory.total >> 20, memory.available >> 20, float(swap.percent)),
        cpu_features=features,
        gpu=has_gpu(root),
        engine=engine,
        need_mb=need_mb(engine),
        whisper_cpp=None if refusal else whisper_cpp_build(),
        whisper_cpp_for=built.cpu if built else "",
        whisper_cpp_refusal=refusal,
        ctranslate2=ctranslate2_build(),
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
    )


def has_gpu(root: Path) -> bool:
    """Return whether NVIDIA's driver shows a GPU."""
    return any((root / path).exists() for path in _GPU)


def whisper_cpp_build() -> str | None:
    """Return whisper.cpp's line about itself; None if it cannot be imported."""
    try:
        import _pywhispercpp  # noqa: PLC0415 - it may be missing
    except ImportError:
        return None
    return str(_pywhispercpp.whisper_print_system_info())


def ctranslate2_build() -> CTranslate2Build | None:
    """Return the abilities of CTranslate2; None if it cannot be imported."""
    try:
        import ctranslate2  # noqa: PLC0415 - it may be missing
    except ImportError:
        return None
    types = sorted(ctranslate2.get_supported_compute_types("cpu"))
    return CTranslate2Build(ctranslate2.__version__, tuple(types), ctranslate2.get_cuda_device_count())


def need_mb(engine: EngineSettings | None) -> int:
    """Return the memory that the agent needs with the engine's model, in MB; 0 without a model."""
    if engine is None or isinstance(engine, ScriptedSettings):
        return 0
    catalogue, file = load_catalogue(), Path(engine.model)
    if engine.model in catalogue:
        entry = catalogue.find(engine.model)
        size, size_bytes = entry.size.removesuffix(".en"), entry.size_bytes
    else:
        size, size_bytes = "", file.stat().st_size if os.path.isfile(file) else 0  # noqa: PTH113 - which never raises
    return memory_need_mb(size, size_bytes, ctranslate2=format_for(engine) is ModelFormat.CTRANSLATE2)


def source_problem(source: SourceSettings) -> AgentError | None:
    """Return why the microphone cannot be opened; None if it can, or if the source is a recording."""
    try:
        if isinstance(source, AlsaSettings):
            AlsaSource(source).close()
    except (SourceError, ConfigError) as error:
        return error
    return None


def connect_problem(host: str, port: int) -> str:
    """Return why there is no connection by TCP; empty if there is."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        return (error.strerror or str(error) or type(error).__name__).lower()
    return ""


def write_problem(folder: Path) -> str:
    """Return why `folder` cannot be made or written to; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def storage_below(folder: Path, root: Path = Path("/")) -> Storage | None:
    """Return the file system of `folder`; None if the kernel does not say."""
    below = [mount for mount in psutil.disk_partitions(all=True) if folder.is_relative_to(mount.mountpoint)]
    if not below:
        return None
    # The longest path is the nearest; of two mounted on the same one the later covers the earlier.
    mount = max(reversed(below), key=lambda mount: len(mount.mountpoint))
    counted = root / "sys/fs/ext4" / Path(mount.device).name / "errors_count"
    errors = int(counted.read_text(encoding="ascii")) if counted.exists() else None
    return Storage(mount.device, mount.fstype, "ro" in mount.opts.split(","), errors, wear_pct(root))


def _service() -> systemctl.Condition | None:
    try:
        service = systemctl.condition()
    except InstallError:  # there is no systemd
        return None
    return service if service.loaded else None
