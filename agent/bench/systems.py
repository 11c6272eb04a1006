"""What is compared: an engine with a model and its options, written `ENGINE:MODEL[:OPTION,OPTION…]`.

whisper_cpp:tiny.en-q8_0                        ours, as the agent would run it
faster_whisper:tiny.en-ct2:beam_size=5          any setting of the engine can be an option
whisper_cpp:base-q8_0:vad                       behind voice activity detection and segmenter, as in the agent
whisper_cpp:base-q8_0:hang_over_ms=1000         any setting of the segmenter; threshold and gate of [vad]
stock-faster-whisper:base-ct2:beam=5            a peer, as its own documentation tells its users to call it
whisper_cpp:tiny.en-q8_0:busy=1                 any of them, while another process keeps a core busy
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from agent.bench.child import BUSY_OPTION, OUR_ENGINES
from agent.bench.clips import NO_SPEECH, Clip
from agent.config.settings import SegmenterSettings, VadSettings
from agent.errors import ConfigError
from agent.models import ModelFormat
from agent.models.languages import is_english_only
from agent.models.store import Store

VAD_OPTION = "vad"
"""Of our engines: put voice activity detection and segmenter in front, as in the agent."""
_DETECTOR_OPTIONS = ("threshold", "gate")


class Adapter(StrEnum):
    """How a system is driven; the names are what users write."""

    WHISPER_CPP = "whisper_cpp"
    FASTER_WHISPER = "faster_whisper"
    SCRIPTED = "scripted"
    """Recognises nothing: what remains is what the measuring itself costs."""
    STOCK_PYWHISPERCPP = "stock-pywhispercpp"
    STOCK_FASTER_WHISPER = "stock-faster-whisper"
    WYOMING_FASTER_WHISPER = "wyoming-faster-whisper"
    OPENAI_WHISPER = "openai-whisper"
    TRANSFORMERS = "transformers"

    @property
    def ours(self) -> bool:
        """True for the agent's own engines."""
        return self in OUR_ENGINES

    @property
    def model_format(self) -> ModelFormat:
        """What kind of model it takes. The PyTorch peers get their weights from a CTranslate2 folder."""
        ggml = self in (Adapter.WHISPER_CPP, Adapter.STOCK_PYWHISPERCPP)
        return ModelFormat.GGML if ggml else ModelFormat.CTRANSLATE2


_PEER_OPTIONS: Mapping[Adapter, frozenset[str]] = {
    Adapter.STOCK_PYWHISPERCPP: frozenset({"threads", "language"}),
    Adapter.STOCK_FASTER_WHISPER: frozenset({"threads", "language", "beam", "compute_type", "vad_filter", "device"}),
    Adapter.WYOMING_FASTER_WHISPER: frozenset({"threads", "language", "beam", "compute_type", "vad_filter"}),
    Adapter.OPENAI_WHISPER: frozenset({"threads", "language", "beam"}),
    Adapter.TRANSFORMERS: frozenset({"threads", "language", "beam"}),
}
_PEERS: Mapping[ModelFormat, Sequence[str]] = {
    ModelFormat.GGML: ("stock-pywhispercpp:{}",),
    ModelFormat.CTRANSLATE2: (
        "stock-faster-whisper:{}:beam=5",
        "stock-faster-whisper:{}:beam=1",
        "wyoming-faster-whisper:{}",
        "openai-whisper:{}:beam=5",
        "transformers:{}:beam=5",
    ),
}


@dataclass(frozen=True, slots=True)
class System:
    """One thing to measure."""

    name: str
    """As the user wrote it, but of a path only its last part; its identity in the results."""
    adapter: Adapter
    model: str
    """Catalogue name or path; empty for `scripted`."""
    options: Mapping[str, str]
    """What the adapter is told besides."""

    def takes(self, clip: Clip) -> bool:
        """False for a language that an English-only model does not know."""
        return clip.language in ("en", NO_SPEECH) or not is_english_only(self.model)


def parse_system(text: str) -> System:
    """Read `ENGINE:MODEL[:OPTION,OPTION…]`; an OPTION is `key=value`, or a bare key for `key=true`.

    Raises:
        ConfigError: not of this form, an unknown engine, or an option that a peer does not have.
    """
    engine, _, rest = text.partition(":")
    model, _, tail = rest.partition(":")
    if engine not in set(Adapter):
        known = ", ".join(Adapter)
        raise ConfigError(f"--system {text}: {engine!r} is not an engine that can be measured; there are {known}")
    if not model and engine != Adapter.SCRIPTED:
        raise ConfigError(f"--system {text}: name a model, as in {engine}:tiny.en-q8_0")
    adapter = Adapter(engine)
    parts = [option.partition("=") for option in tail.split(",") if option]
    options = {key.strip(): value.strip() if equals else "true" for key, equals, value in parts}
    unknown = set(options) - _PEER_OPTIONS.get(adapter, frozenset(options)) - {BUSY_OPTION}
    if unknown:
        has = ", ".join(sorted(_PEER_OPTIONS[adapter]))
        raise ConfigError(f"--system {text}: {engine} has no option {min(unknown)}; it has {has}")
    name = ":".join(part for part in (engine, Path(model).name.removesuffix(".bin"), tail) if part)
    return System(name, adapter, model, options)


def named(text: str, names: Sequence[str]) -> str:
    """Which of `names` is meant: one of them, or a system with a path, written as for `--system`.

    Raises:
        ConfigError: none of them.
    """
    if text in names:
        return text
    with suppress(ConfigError):
        if (name := parse_system(text).name) in names:
            return name
    raise ConfigError(f"--baseline {text}: not one of the systems of this run, which are {', '.join(names)}")


def engine_settings(adapter: Adapter, model: str, options: Mapping[str, str], language: str) -> dict[str, str]:
    """The settings, by their names in `[engine]`, that make one of our engines what the system says."""
    others = {VAD_OPTION, BUSY_OPTION, *SegmenterSettings.model_fields, *_DETECTOR_OPTIONS}
    chosen = {"language": language} | {key: value for key, value in options.items() if key not in others}
    if adapter is Adapter.SCRIPTED:
        chosen.pop("threads", None)
        return chosen | {"kind": adapter.value}
    return chosen | {"kind": adapter.value, "model": model}


def listening_settings(options: Mapping[str, str]) -> tuple[VadSettings, SegmenterSettings]:
    """What a system's options make of detector and segmenter; the defaults where they say nothing.

    Raises:
        ConfigError: a value is out of bounds.
    """
    vad = {key: value for key, value in options.items() if key in _DETECTOR_OPTIONS}
    segmenter = {key: value for key, value in options.items() if key in SegmenterSettings.model_fields}
    try:
        return VadSettings.model_validate(vad), SegmenterSettings.model_validate(segmenter)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--system: option {problem['loc'][-1]}: {problem['msg']}; see docs/settings.md") from None


def are_peers(ours: str, peer: str) -> bool:
    """Whether `ours` is the name of one of our engines, and `peer` that of a peer with the same model."""
    (engine, model), (other, other_model) = ((*name.split(":"), "")[:2] for name in (ours, peer))
    return engine in OUR_ENGINES and other not in OUR_ENGINES and model == other_model != ""


def with_threads(system: System, threads: int) -> System:
    """The same with that number of threads, unless it says itself how many."""
    return replace(system, options={"threads": str(threads), **system.options})


def distinct(systems: Iterable[System]) -> list[System]:
    """Each system once, in order.

    Raises:
        ConfigError: two models would have the same name in the results.
    """
    unique: dict[str, System] = {}
    for system in systems:
        other = unique.setdefault(system.name, system)
        if other.model != system.model:
            raise ConfigError(
                f"--system: {other.model} and {system.model} would both be {system.name} in the results: "
                "give one of them another name, or measure them with an --out each"
            )
    return list(unique.values())


def peers_of(model: str, model_format: ModelFormat) -> list[System]:
    """The peers that can take `model`, called as their users call them."""
    return [parse_system(text.format(model)) for text in _PEERS[model_format]]


def model_path(system: System, store: Store) -> Path:
    """The verified model of `system`, which names it, or gives its path; nothing at all for an engine without one.

    Raises:
        ModelError: it is not there, of another format, or not what it should be.
    """
    if system.adapter is Adapter.SCRIPTED:
        return Path(os.devnull)
    return store.resolve(system.model, system.adapter.model_format)


def weights_sha256(path: Path, store: Store) -> str:
    """Digest of the weights at `path`, which `model_path` gave; empty for an engine without a model."""
    return "" if path == Path(os.devnull) else store.digest(path / "model.bin" if path.is_dir() else path)
