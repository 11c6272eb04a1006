"""Read the systems to compare: an engine with a model and its options, written `ENGINE:MODEL[:OPTION,OPTION…]`.

whisper_cpp:tiny.en-q8_0                        ours, as the agent would run it
faster_whisper:tiny.en-ct2:beam_size=5          any setting of the engine can be an option
whisper_cpp:base-q8_0:vad                       behind voice activity detection and segmenter, as in the agent
whisper_cpp:base-q8_0:hang_over_ms=1000         any setting of the segmenter; threshold and gate of [vad]
stock-faster-whisper:base-ct2:beam=5            a peer, called as its own documentation shows
whisper_cpp:tiny.en-q8_0:busy=1                 any of them, while another process keeps a core busy
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.bench.child import BUSY_OPTION, Adapter, System
from agent.bench.clips import NO_SPEECH, Clip
from agent.errors import ConfigError
from agent.models import ModelFormat
from agent.models.languages import is_english_only
from agent.models.store import Store

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


def parse_system(text: str) -> System:
    """Read `ENGINE:MODEL[:OPTION,OPTION…]`; an OPTION is `key=value`, or a bare key for `key=true`.

    Raises:
        ConfigError: the form is wrong, the engine is unknown, or the peer does not have the option.
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
    return System(name, adapter, model, options, english_only=is_english_only(model))


def named(text: str, names: Sequence[str]) -> str:
    """Return which of `names` is meant by `text`: a name, or a system with a path, written as for `--system`.

    Raises:
        ConfigError: none of them.
    """
    if text in names:
        return text
    with suppress(ConfigError):
        if (name := parse_system(text).name) in names:
            return name
    raise ConfigError(f"--baseline {text}: not one of the systems of this run, which are {', '.join(names)}")


def takes(system: System, clip: Clip) -> bool:
    """Return whether the model knows the language of a clip; every model takes a clip without speech."""
    return clip.language in ("en", NO_SPEECH) or not system.english_only


def are_peers(ours: str, peer: str) -> bool:
    """Return whether `ours` is the name of one of our engines, and `peer` the name of a peer with the same model."""
    (engine, model), (other, other_model) = ((*name.split(":"), "")[:2] for name in (ours, peer))
    engines = {adapter for adapter in Adapter if adapter.ours}
    return engine in engines and other not in engines and model == other_model != ""


def with_threads(system: System, threads: int) -> System:
    """Return `system` with this number of threads, unless its options name another."""
    return replace(system, options={"threads": str(threads), **system.options})


def distinct(systems: Iterable[System]) -> list[System]:
    """Return each system once, in order.

    Raises:
        ConfigError: two models would have the same name in the results.
    """
    unique: dict[str, System] = {}
    for system in systems:
        other = unique.setdefault(system.name, system)
        if other.model != system.model:
            raise ConfigError(
                f"--system: {other.model} and {system.model} would both be {system.name} in the results: "
                "rename one of them, or measure each with its own --out"
            )
    return list(unique.values())


def peers_of(model: str, model_format: ModelFormat) -> list[System]:
    """Return the peers that can take `model`, with the options that their users give."""
    return [parse_system(text.format(model)) for text in _PEERS[model_format]]


def located(system: System, store: Store) -> System:
    """Return `system` with the path of its verified model; an engine without a model stays as it is.

    Raises:
        ModelError: the model is missing, damaged, or of another format.
    """
    if system.adapter is Adapter.SCRIPTED:
        return system
    return replace(system, path=str(store.resolve(system.model, system.adapter.model_format).absolute()))


def weights_sha256(system: System, store: Store) -> str:
    """Return the digest of the weights of a located system; empty for an engine without a model."""
    path = Path(system.path)
    if system.adapter is Adapter.SCRIPTED:
        return ""
    return store.digest(path / "model.bin" if path.is_dir() else path)
