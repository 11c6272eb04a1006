"""Looks at this machine for `checks`: all that touches files, devices, libraries and the network."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

import psutil

from agent.asr import cpu
from agent.config.commanded import commanded
from agent.config.layers import models_dir, state_dir
from agent.config.named import file_problem
from agent.config.settings import EngineSettings, ScriptedSettings, Settings
from agent.config.source import AlsaSettings, SourceSettings
from agent.diagnostics.checks import AutoFacts, CTranslate2Build, Facts, ModelFacts
from agent.errors import AgentError, ConfigError, DeviceBusy, ModelError, SourceError
from agent.install import extras
from agent.messages import identity
from agent.models import ModelFormat
from agent.models.catalogue import load_catalogue
from agent.models.files import nearest_folder
from agent.models.selection import chosen_model, format_for, in_words, resolve
from agent.models.store import Store
from agent.telemetry.naming import broker_name

CONNECT_S: Final = 2.0
MIB: Final = 1024 * 1024


def look(settings: Settings, settings_problem: str = "", service_says: str = "", root: Path = Path("/")) -> Facts:
    """Find everything out; takes a few seconds if the broker does not answer."""
    here, memory = identity.describe(root), psutil.virtual_memory()
    folder = state_dir(settings)
    mqtt = settings.mqtt
    built = cpu.built_for("pywhispercpp")
    refusal = cpu.refusal(built, cpu.features(root), here.arch)
    engine, auto = engine_facts(settings)
    deaf = source_error(settings.source)
    return Facts(
        hardware=here.hardware or "unknown board",
        arch=here.arch,
        os=here.os or "unknown system",
        cores=len(os.sched_getaffinity(0)),
        memory_total_mb=memory.total // MIB,
        memory_available_mb=memory.available // MIB,
        cpu_features=cpu.features(root),
        gpu=has_gpu(root),
        settings_problem=settings_problem,
        engine=engine.kind if engine else settings.engine.kind,
        whisper_cpp=None if refusal else whisper_cpp_build(),
        whisper_cpp_for=built.cpu if built else "",
        whisper_cpp_refusal=refusal,
        ctranslate2=ctranslate2_build(),
        model=model_facts(settings, engine) if engine else None,
        source=_source_name(settings.source),
        source_problem=str(deaf or ""),
        source_busy=isinstance(deaf, DeviceBusy),
        service_says=service_says,
        broker=broker_name(settings) if mqtt.enabled else None,
        broker_problem=connect_problem(mqtt.host, mqtt.effective_port) if mqtt.enabled else "",
        clock_synced=identity.time_synced(root),
        state_dir=folder,
        state_problem=write_problem(folder),
        state_free_mb=shutil.disk_usage(nearest_folder(folder)).free // MIB,
        installation=extras.here(),
        auto=auto,
        muted=commanded(settings).muted,
    )


def has_gpu(root: Path) -> bool:
    """Whether NVIDIA's driver shows a GPU: on a PC, or on a Jetson."""
    return any((root / path).exists() for path in ("proc/driver/nvidia/version", "dev/nvhost-gpu", "dev/nvgpu"))


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


def engine_facts(settings: Settings) -> tuple[EngineSettings | None, AutoFacts | None]:
    """The engine that is used, None if nothing can be; and how it was chosen, where the settings leave that open."""
    try:
        resolved = resolve(settings)
    except ModelError as error:
        return None, AutoFacts("", str(error))
    if settings.engine.kind != "auto":
        return resolved.engine, None
    return resolved.engine, AutoFacts(in_words(resolved.engine), resolved.warning)


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
    return ModelFacts(engine.model, format_for(engine) is ModelFormat.CTRANSLATE2, size, size_bytes, problem)


def source_error(source: SourceSettings) -> AgentError | None:
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
    """Why nobody answers there by TCP; empty if somebody does."""
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


def _source_name(source: SourceSettings) -> str:
    return f"microphone {source.device}" if isinstance(source, AlsaSettings) else str(source.path)
