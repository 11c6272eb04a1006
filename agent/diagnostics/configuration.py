"""Whether the configuration is right, and what it names exists. Each problem is one line: where, key, what, remedy."""

import importlib.util
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.audio import libasound
from agent.config.commanded import commanded
from agent.config.keywords import doubt, keyword_rules
from agent.config.layers import Loaded, may_be_there, models_dir, password_file
from agent.config.schema import by_path, dotted
from agent.config.settings import AutoSettings, ScriptedSettings, Settings
from agent.errors import ModelError
from agent.install import extras
from agent.models.catalogue import load_catalogue
from agent.models.languages import is_english_only
from agent.models.selection import chosen_model, language_problem, resolve
from agent.models.store import Store

CT2_SUFFIX: Final = "-ct2"
CREDENTIALS: Final = Path("/run/credentials")
"""Where systemd puts what `LoadCredential=` names."""
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
Said = tuple[str, str]
"""A key, and what is to be said about it."""


def problems(loaded: Loaded, *, parts: bool = True, model: bool = True) -> list[str]:
    """Why `run` would not start; one line each.

    Args:
        loaded: The settings.
        parts: Also what engine and source need, for which `doctor` has lines of its own.
        model: Also the model; without, that one is still to be fetched.
    """
    settings = loaded.settings
    contradictory = list(_contradictions(settings))
    found = [*contradictory, *_unknown_models(settings), *_missing_certificates(settings), *_missing_packages(settings)]
    if parts:
        found += _missing_parts(settings)
    if model and not contradictory:  # the store would only say again that the model is of the wrong format
        found += _model_problem(settings)
    return _located(loaded, found)


def advice(loaded: Loaded, *, parts: bool = True) -> list[str]:
    """What works, but should not stay so; without `parts`, no more than `doctor` has no lines of its own for."""
    settings = loaded.settings
    found = [*_exposed_secrets(loaded), *_useless_keywords(settings)]
    if parts:
        found = [*_calibration_warning(settings), ("", commanded(settings).muted), *found]
    return _located(loaded, [(key, text) for key, text in found if text])


def is_name(model: str) -> bool:
    """True for a catalogue name, False for a path."""
    return os.sep not in model and not os.path.exists(model)  # noqa: PTH110 - which never raises


def is_for_the_service_only(path: Path) -> bool:
    """True for a credential of a running service, which only the service sees."""
    return path.is_relative_to(CREDENTIALS) and "CREDENTIALS_DIRECTORY" not in os.environ


def file_problem(path: Path) -> str:
    """Why this user cannot read the file, with the remedy; empty if it can."""
    try:
        if path == Path("-") or path.is_fifo():  # standard input or a pipe: to open it would be to wait
            return ""
        if not path.is_file():
            return "does not exist: correct the path"
        with path.open("rb"):
            return ""
    except OSError:  # as a rule its mode; or a folder above it is closed, as /etc/ssl/private is
        return "cannot be read by this user: check its owner and mode"


def _located(loaded: Loaded, found: Iterable[Said]) -> list[str]:
    """With `file:line: ` in front, where the key has not its default."""
    origins = [(loaded.origins.get(tuple(key.split("."))), text) for key, text in found]
    return [f"{origin}: {text}" if origin else text for origin, text in origins]


def _contradictions(settings: Settings) -> Iterator[Said]:
    """What cannot work together. Decided by the settings alone."""
    engine = settings.engine
    if isinstance(engine, ScriptedSettings | AutoSettings):
        return
    stem, for_ct2 = engine.model.rsplit("-", 1)[0], engine.model.endswith(CT2_SUFFIX)
    if is_name(engine.model) and for_ct2 is not (engine.kind == "faster_whisper"):
        made, kind, model = (
            ("CTranslate2", "faster_whisper", f"{stem}-q8_0") if for_ct2 else ("ggml", "whisper_cpp", stem + CT2_SUFFIX)
        )
        what = f'engine.model = "{engine.model}" is a {made} model'
        yield "engine.model", f'{what}: set engine.kind = "{kind}", or engine.model = "{model}"'
    if problem := language_problem(engine):
        yield "engine.language", problem
    if engine.kind == "faster_whisper" and engine.device == "cpu" and engine.compute_type.endswith("float16"):
        what = f'engine.compute_type = "{engine.compute_type}" needs a GPU'
        yield "engine.compute_type", f'{what}: set engine.device = "cuda", or engine.compute_type = "int8"'


def _exposed_secrets(loaded: Loaded) -> Iterator[Said]:
    """Passwords that others can read, on this device or on the way, and one that is missing."""
    for path, origin in loaded.origins.items():
        secret = any(setting.secret for setting in by_path(path))
        if secret and origin.file and origin.file.stat().st_mode & stat.S_IROTH:
            remedy = f"chmod 640 {origin.file}, or give it as a credential"
            yield dotted(path), f"{dotted(path)} is a secret in a file that everybody can read: {remedy}"
    mqtt, beside = loaded.settings.mqtt, password_file(loaded.file)
    # Where the service has a password that this user may not read, all is well.
    if mqtt.username is not None and mqtt.password is None and not may_be_there(beside):
        remedy = f"write it into {beside} (mode 600), or set EDGESCRIBE_MQTT__PASSWORD or the credential mqtt__password"
        text = "mqtt.username is set without a password and is sent alone: if the broker wants a password,"
        yield "mqtt.username", f"{text} {remedy}"
    if mqtt.enabled and mqtt.password and not mqtt.tls.enabled and mqtt.host not in LOCAL_HOSTS:
        yield "mqtt.password", f"the password goes to {mqtt.host} unencrypted: set mqtt.tls.enabled = true"


def _useless_keywords(settings: Settings) -> Iterator[Said]:
    """Keywords that can never match, or always do."""
    english_only = is_english_only(getattr(settings.engine, "model", ""))
    for rule in keyword_rules(settings.publish.keywords):
        if problem := doubt(rule, english_only=english_only):
            yield "publish.keywords", f"publish.keywords: {rule.name[:40]!r} {problem}"


def _unknown_models(settings: Settings) -> Iterator[Said]:
    """Models of the governor that the catalogue does not have."""
    governor, engine = settings.governor, settings.engine
    if not governor.enabled or isinstance(engine, ScriptedSettings):
        return
    named = [("governor.models", name) for name in governor.models]
    if governor.floor and governor.floor != getattr(engine, "model", ""):
        named.append(("governor.floor", governor.floor))
    for key, name in named:
        try:
            load_catalogue().find(name)
        except ModelError as error:
            yield key, f"{key}: {error}"


def _missing_certificates(settings: Settings) -> Iterator[Said]:
    for name in ("ca_file", "cert_file", "key_file"):
        path = getattr(settings.mqtt.tls, name)
        if path is not None and not is_for_the_service_only(path) and (problem := file_problem(path)):
            yield f"mqtt.tls.{name}", f"mqtt.tls.{name}: {path} {problem}"


def _missing_packages(settings: Settings) -> Iterator[Said]:
    sound = settings.sound
    if sound.noise_suppression or sound.auto_gain:
        key = "sound.noise_suppression" if sound.noise_suppression else "sound.auto_gain"
        yield from _missing_package(key, key, "webrtc_noise_gain", "enhance")
    if settings.assist.enabled:
        yield from _missing_package("assist.enabled", "assist.enabled", "wyoming", "assist")


def _missing_package(key: str, what: str, package: str, extra: str) -> Iterator[Said]:
    if importlib.util.find_spec(package) is None:
        yield key, f"{what} needs a package that is not installed: {extras.missing(extra)}"


def _missing_parts(settings: Settings) -> Iterator[Said]:
    """What engine and source need: a recording, a package, a library."""
    source = settings.source
    if source.kind == "wav" and (problem := file_problem(source.path)):
        yield "source.path", f"source.path: {source.path} {problem}"
    if settings.engine.kind == "faster_whisper":
        yield from _missing_package("engine.kind", 'engine.kind = "faster_whisper"', "ctranslate2", "faster-whisper")
    if source.kind == "alsa" and not libasound.installed():
        yield "source.kind", 'source.kind = "alsa" needs a library that is not installed: apt install alsa-utils'


def _model_problem(settings: Settings) -> Iterator[Said]:
    """Why the model cannot be used, with the command that brings it."""
    try:
        chosen_model(resolve(settings).engine, Store(models_dir(settings), load_catalogue()))
    except ModelError as error:
        yield "engine.kind" if settings.engine.kind == "auto" else "engine.model", str(error)


def _calibration_warning(settings: Settings) -> Iterator[Said]:
    """What is not as it should be where the calibration chooses the engine; what is *wrong* says `_model_problem`."""
    try:
        if warning := resolve(settings).warning:
            yield "engine.kind", warning
    except ModelError:
        return
