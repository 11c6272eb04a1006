"""Checks the settings and the things that they name. Touches no device and no network."""

import importlib.util
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.audio import libasound
from agent.config.commanded import commanded
from agent.config.keywords import doubt, keyword_rules
from agent.config.layers import Loaded, may_be_there, models_dir, password_file
from agent.config.schema import by_path, dotted
from agent.config.settings import AutoSettings, ScriptedSettings, Settings
from agent.diagnostics import Finding, Status
from agent.errors import ModelError
from agent.install import extras
from agent.models.catalogue import load_catalogue
from agent.models.languages import is_english_only
from agent.models.selection import chosen_model, language_problem, resolve
from agent.models.store import Store

CT2_SUFFIX: Final = "-ct2"
CREDENTIALS: Final = Path("/run/credentials")
"""Folder in which systemd puts the files of `LoadCredential=`."""
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MODEL_SUBJECTS: Final = frozenset({"model", "calibration"})
"""Subjects of findings that fetching or measuring a model can remove."""
_REMEDY: Final = "correct it, then run `edgescribe check`"
_FAIL, _WARN = Status.FAIL, Status.WARN
Problem = tuple[Status, str, str, str]
"""Status, subject, key (empty for none), and text."""


def wrong_settings(text: str) -> list[Finding]:
    """Return findings about settings that cannot be read, from the lines of the error."""
    return [Finding(_FAIL, "settings", line, _REMEDY) for line in text.splitlines()]


def findings(loaded: Loaded) -> list[Finding]:
    """Return the faults (with them `run` would not start) and the warnings; empty if all is well.

    A text is one line: where the setting stands, its key, the fault, and the remedy.
    """
    settings = loaded.settings
    found = [
        *_contradictions(settings),
        *_unknown_models(settings),
        *_missing_certificates(settings),
        *_missing_packages(settings),
        *_missing_source(settings),
        *_model(settings),
        (_WARN, "muted", "", commanded(settings).muted),
        *_exposed_secrets(loaded),
        *_useless_keywords(settings),
    ]
    origins = {key: loaded.origins.get(tuple(key.split("."))) for _, _, key, _ in found}
    return [
        Finding(
            status,
            subject,
            f"{origins[key]}: {text}" if origins[key] else text,
            _REMEDY if subject == "settings" else "",
        )
        for status, subject, key, text in found
        if text
    ]


def is_name(model: str) -> bool:
    """Return True for a name in the catalogue, False for a path."""
    return os.sep not in model and not os.path.exists(model)  # noqa: PTH110 - which never raises


def is_for_the_service_only(path: Path) -> bool:
    """Return whether the file is a credential that only the running service sees."""
    return path.is_relative_to(CREDENTIALS) and "CREDENTIALS_DIRECTORY" not in os.environ


def file_problem(path: Path) -> str:
    """Return why this user cannot read the file, with the remedy; empty if it can."""
    try:
        if path == Path("-") or path.is_fifo():  # standard input or a pipe: opening it would wait
            return ""
        if not path.is_file():
            return "does not exist: correct the path"
        with path.open("rb"):
            return ""
    except OSError:  # mostly its mode, or that of a folder above, such as /etc/ssl/private
        return "cannot be read by this user: check its owner and mode"


def _contradictions(settings: Settings) -> Iterator[Problem]:
    engine = settings.engine
    if isinstance(engine, ScriptedSettings | AutoSettings):
        return
    stem, for_ct2 = engine.model.rsplit("-", 1)[0], engine.model.endswith(CT2_SUFFIX)
    if is_name(engine.model) and for_ct2 is not (engine.kind == "faster_whisper"):
        made, kind, model = (
            ("CTranslate2", "faster_whisper", f"{stem}-q8_0") if for_ct2 else ("ggml", "whisper_cpp", stem + CT2_SUFFIX)
        )
        text = f'engine.model = "{engine.model}" is a {made} model'
        yield _FAIL, "settings", "engine.model", f'{text}: set engine.kind = "{kind}", or engine.model = "{model}"'
    if problem := language_problem(engine):
        yield _FAIL, "settings", "engine.language", problem
    if engine.kind == "faster_whisper" and engine.device == "cpu" and engine.compute_type.endswith("float16"):
        text = f'engine.compute_type = "{engine.compute_type}" needs a GPU'
        remedy = 'set engine.device = "cuda", or engine.compute_type = "int8"'
        yield _FAIL, "settings", "engine.compute_type", f"{text}: {remedy}"


def _unknown_models(settings: Settings) -> Iterator[Problem]:
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
            yield _FAIL, "settings", key, f"{key}: {error}"


def _missing_certificates(settings: Settings) -> Iterator[Problem]:
    for name in ("ca_file", "cert_file", "key_file"):
        path, key = getattr(settings.mqtt.tls, name), f"mqtt.tls.{name}"
        if path is not None and not is_for_the_service_only(path) and (problem := file_problem(path)):
            yield _FAIL, "settings", key, f"{key}: {path} {problem}"


def _missing_packages(settings: Settings) -> Iterator[Problem]:
    """Report each package that a setting needs and that is not installed, with the command that installs it."""
    sound, faster_whisper = settings.sound, settings.engine.kind == "faster_whisper"
    needed = (
        ("settings", "sound.noise_suppression", sound.noise_suppression, "webrtc_noise_gain", "enhance"),
        ("settings", "sound.auto_gain", sound.auto_gain, "webrtc_noise_gain", "enhance"),
        ("settings", "assist.enabled", settings.assist.enabled, "wyoming", "assist"),
        ("CTranslate2", 'engine.kind = "faster_whisper"', faster_whisper, "ctranslate2", "faster-whisper"),
    )
    for subject, words, wanted, package, extra in needed:
        if wanted and importlib.util.find_spec(package) is None:
            text = f"{words} needs a package that is not installed: {extras.missing(extra)}"
            yield _FAIL, subject, words.partition(" ")[0], text


def _missing_source(settings: Settings) -> Iterator[Problem]:
    source = settings.source
    if source.kind == "wav" and (problem := file_problem(source.path)):
        yield _FAIL, "source", "source.path", f"source.path: {source.path} {problem}"
    if source.kind == "alsa" and not libasound.installed():
        text = 'source.kind = "alsa" needs a library that is not installed: apt install alsa-utils'
        yield _FAIL, "source", "source.kind", text


def _model(settings: Settings) -> Iterator[Problem]:
    """Report a model that cannot be used, with the command that brings it, and a calibration that does not hold."""
    if any(_contradictions(settings)):  # the store would report the wrong format again
        return
    subject, key = ("calibration", "engine.kind") if settings.engine.kind == "auto" else ("model", "engine.model")
    try:
        resolved = resolve(settings)
        if resolved.warning:
            yield _WARN, subject, key, resolved.warning
        subject = "model"
        chosen_model(resolved.engine, Store(models_dir(settings), load_catalogue()))
    except ModelError as error:
        yield _FAIL, subject, key, str(error)


def _exposed_secrets(loaded: Loaded) -> Iterator[Problem]:
    """Warn of passwords that others can read, on this device or on the network, and of a missing one."""
    for path, origin in loaded.origins.items():
        secret = any(setting.secret for setting in by_path(path))
        if secret and origin.file and origin.file.stat().st_mode & stat.S_IROTH:
            key, remedy = dotted(path), f"chmod 640 {origin.file}, or give it as a credential"
            yield _WARN, "settings", key, f"{key} is a secret in a file that everybody can read: {remedy}"
    mqtt, beside = loaded.settings.mqtt, password_file(loaded.file)
    # A password that only the service may read is good enough.
    if mqtt.username is not None and mqtt.password is None and not may_be_there(beside):
        remedy = f"write it into {beside} (mode 600), or set EDGESCRIBE_MQTT__PASSWORD or the credential mqtt__password"
        text = "mqtt.username is set without a password and is sent alone: if the broker wants a password,"
        yield _WARN, "settings", "mqtt.username", f"{text} {remedy}"
    if mqtt.enabled and mqtt.password and not mqtt.tls.enabled and mqtt.host not in LOCAL_HOSTS:
        text = f"the password goes to {mqtt.host} unencrypted: set mqtt.tls.enabled = true"
        yield _WARN, "settings", "mqtt.password", text


def _useless_keywords(settings: Settings) -> Iterator[Problem]:
    """Warn of keywords that never match, or always."""
    english_only = is_english_only(getattr(settings.engine, "model", ""))
    for rule in keyword_rules(settings.publish.keywords):
        if problem := doubt(rule, english_only=english_only):
            yield _WARN, "settings", "publish.keywords", f"publish.keywords: {rule.name[:40]!r} {problem}"
