"""`edgescribe check`: is the configuration right, and does what it names exist?"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_settings_options, load_from
from agent.config.named import file_problem
from agent.errors import ConfigError, ModelError
from agent.install import extras

if TYPE_CHECKING:
    from agent.config.layers import Loaded

CT2_SUFFIX = "-ct2"
CREDENTIALS = Path("/run/credentials")
"""Where systemd puts what `LoadCredential=` names."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "check",
        help="is the configuration right?",
        description="Is the configuration right, and does what it names exist?",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Say that all is well, or raise `ConfigError` with one line for every problem."""
    loaded = load_from(args)
    for warning in (*loaded.warnings, *advice(loaded)):
        print(f"edgescribe: warning: {warning}", file=sys.stderr)
    if found := problems(loaded):
        raise ConfigError("\n".join(found))
    print("configuration is fine")
    return 0


def problems(loaded: "Loaded", *, model: bool = True) -> list[str]:
    """Why `run` would not start; one line each. Without `model`, that one is still to be fetched."""
    contradictory = list(contradictions(loaded))
    found = [*problems_of_settings(loaded), *missing_parts(loaded)]
    # The store would only say again that the model is of the wrong format.
    unfit = model_problem(loaded) if model and not contradictory else None
    return [*found, unfit] if unfit else found


def problems_of_settings(loaded: "Loaded") -> Iterator[str]:
    """Those of them that `doctor` has no line of its own for."""
    yield from contradictions(loaded)
    yield from unknown_models(loaded)
    yield from missing_files(loaded)
    yield from missing_packages(loaded)


def contradictions(loaded: "Loaded") -> Iterator[str]:
    """What cannot work together. Decided by the settings alone."""
    from agent.models.selection import language_problem

    engine = loaded.settings.engine
    if engine.kind == "scripted" or engine.kind == "auto":  # noqa: PLR1714 - mypy narrows by `==` only
        return
    model = f'{_at(loaded, "engine.model")}engine.model = "{engine.model}"'
    for_ct2 = engine.model.endswith(CT2_SUFFIX)
    if is_name(engine.model) and engine.kind == "whisper_cpp" and for_ct2:
        ggml = engine.model.removesuffix(CT2_SUFFIX) + "-q8_0"
        yield f'{model} is a CTranslate2 model: set engine.kind = "faster_whisper", or engine.model = "{ggml}"'
    if is_name(engine.model) and engine.kind == "faster_whisper" and not for_ct2:
        ct2 = engine.model.rsplit("-", 1)[0] + CT2_SUFFIX
        yield f'{model} is a ggml model: set engine.kind = "whisper_cpp", or engine.model = "{ct2}"'
    if problem := language_problem(engine):
        yield f"{_at(loaded, 'engine.language')}{problem}"
    if engine.kind == "faster_whisper" and engine.device == "cpu" and engine.compute_type.endswith("float16"):
        yield (
            f'{_at(loaded, "engine.compute_type")}engine.compute_type = "{engine.compute_type}" needs a GPU: '
            'set engine.device = "cuda", or engine.compute_type = "int8"'
        )


def advice(loaded: "Loaded") -> Iterator[str]:
    """What works, but should not stay so."""
    from agent.config.commanded import commanded

    if warning := auto_warning(loaded):
        yield f"{_at(loaded, 'engine.kind')}{warning}"
    if muted := commanded(loaded.settings).muted:
        yield muted
    yield from useless_keywords(loaded)
    mqtt = loaded.settings.mqtt
    if mqtt.enabled and mqtt.password and not mqtt.tls.enabled and mqtt.host not in LOCAL_HOSTS:
        yield f"{_at(loaded, 'mqtt.password')}the password goes to {mqtt.host} unencrypted: set mqtt.tls.enabled = true"


def useless_keywords(loaded: "Loaded") -> Iterator[str]:
    """Keywords that can never match, or always do."""
    from agent.config.keywords import doubt, keyword_rules
    from agent.models.languages import is_english_only

    model = getattr(loaded.settings.engine, "model", "")
    for rule in keyword_rules(loaded.settings.publish.keywords):
        if problem := doubt(rule, english_only=is_english_only(model)):
            yield f"{_at(loaded, 'publish.keywords')}publish.keywords: {rule.name[:40]!r} {problem}"


def is_name(model: str) -> bool:
    """True for a catalogue name, False for a path."""
    return os.sep not in model and not os.path.exists(model)  # noqa: PTH110 - which never raises


def missing_files(loaded: "Loaded") -> Iterator[str]:
    """Certificates that do not exist or cannot be read."""
    tls = loaded.settings.mqtt.tls
    named = {
        "mqtt.tls.ca_file": tls.ca_file,
        "mqtt.tls.cert_file": tls.cert_file,
        "mqtt.tls.key_file": tls.key_file,
    }
    for key, path in named.items():
        if path is not None and not is_for_the_service_only(path) and (problem := file_problem(path)):
            yield f"{_at(loaded, key)}{key}: {path} {problem}"


def is_for_the_service_only(path: Path) -> bool:
    """True for a credential of a running service, which exists for nobody else."""
    return path.is_relative_to(CREDENTIALS) and "CREDENTIALS_DIRECTORY" not in os.environ


def is_installed(package: str) -> bool:
    """True if `package` can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def has_libasound() -> bool:
    """True if there is ALSA's library."""
    from agent.audio import libasound

    return libasound.installed()


def missing_packages(loaded: "Loaded") -> Iterator[str]:
    """Extras that the settings need."""
    sound, needs = loaded.settings.sound, "needs a package that is not installed:"
    if (sound.noise_suppression or sound.auto_gain) and not is_installed("webrtc_noise_gain"):
        key = "sound.noise_suppression" if sound.noise_suppression else "sound.auto_gain"
        yield f"{_at(loaded, key)}{key} {needs} {extras.missing('enhance')}"
    if loaded.settings.assist.enabled and not is_installed("wyoming"):
        yield f"{_at(loaded, 'assist.enabled')}assist.enabled {needs} {extras.missing('assist')}"


def unknown_models(loaded: "Loaded") -> Iterator[str]:
    """Models of the governor that nobody knows."""
    from agent.models.catalogue import load_catalogue

    governor, engine = loaded.settings.governor, loaded.settings.engine
    if not governor.enabled or engine.kind == "scripted":
        return
    named = [("governor.models", name) for name in governor.models]
    if governor.floor and governor.floor != getattr(engine, "model", ""):
        named.append(("governor.floor", governor.floor))
    catalogue = load_catalogue()
    for key, name in named:
        try:
            catalogue.find(name)
        except ModelError as error:
            yield f"{_at(loaded, key)}{key}: {error}"


def missing_parts(
    loaded: "Loaded", installed: Callable[[str], bool] = is_installed, alsa: Callable[[], bool] = has_libasound
) -> Iterator[str]:
    """What engine and source need: a recording, a package, a library."""
    engine, source = loaded.settings.engine, loaded.settings.source
    if source.kind == "wav" and (problem := file_problem(source.path)):
        yield f"{_at(loaded, 'source.path')}source.path: {source.path} {problem}"
    if engine.kind == "faster_whisper" and not installed("ctranslate2"):
        yield (
            f'{_at(loaded, "engine.kind")}engine.kind = "faster_whisper" needs a package that is not installed: '
            f"{extras.missing('faster-whisper')}"
        )
    if source.kind == "alsa" and not alsa():
        yield (
            f'{_at(loaded, "source.kind")}source.kind = "alsa" needs a library that is not installed: '
            "apt install alsa-utils"
        )


def model_problem(loaded: "Loaded") -> str | None:
    """Why the model cannot be used, with the command that brings it; None if it can."""
    from agent.config.layers import models_dir
    from agent.models.catalogue import load_catalogue
    from agent.models.selection import chosen_model, resolve
    from agent.models.store import Store

    try:
        engine = resolve(loaded.settings).engine
        chosen_model(engine, Store(models_dir(loaded.settings), load_catalogue()))
    except ModelError as error:
        key = "engine.kind" if loaded.settings.engine.kind == "auto" else "engine.model"
        return f"{_at(loaded, key)}{error}"
    return None


def auto_warning(loaded: "Loaded") -> str:
    """What is not as it should be where the calibration chooses the engine; what is *wrong* says `model_problem`."""
    from agent.models.selection import resolve

    try:
        return resolve(loaded.settings).warning
    except ModelError:
        return ""


def _at(loaded: "Loaded", key: str) -> str:
    """`file:line: ` of a key; empty where it has its default."""
    origin = loaded.origins.get(tuple(key.split(".")))
    return f"{origin}: " if origin else ""
