"""`calibration.json` in the state folder: written whole or not at all, read with suspicion."""

import json
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.config.commanded import SERVICE_STATE
from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.config.state_file import read_json, write_json
from agent.errors import AgentError
from agent.models.calibration_records import VERSION, Calibration

NAME = "calibration.json"
_MODE = 0o644
"""It is no secret, and the service may be another user than the one that calibrates."""
_ADAPTER = TypeAdapter(Calibration)


def folder_of(settings: Settings) -> Path:
    """The state folder that holds the calibration: for root, who measures for the service, that of the service."""
    named = settings.state_dir or "STATE_DIRECTORY" in os.environ
    for_service = not named and os.geteuid() == 0 and SERVICE_STATE.is_dir()
    return SERVICE_STATE if for_service else state_dir(settings)


def command() -> str:
    """The command that calibrates: the service has another state folder than the user who reads its log."""
    return "`sudo edgescribe calibrate`" if "STATE_DIRECTORY" in os.environ else "`edgescribe calibrate`"


class CalibrationError(AgentError):
    """There is no calibration, or it cannot be read or written."""


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write the file so that it survives a power cut; return its path.

    Raises:
        CalibrationError: it cannot be written.
    """
    path = folder / NAME
    try:
        write_json(path, _ADAPTER.dump_python(calibration, mode="json"), mode=_MODE, indent=1)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be written ({error.strerror}): run it as a user who may, or set state_dir"
        ) from error
    return path


def read_calibration(folder: Path) -> Calibration:
    """Read the file.

    Raises:
        CalibrationError: it is absent, cannot be read, or is of another version.
    """
    path = folder / NAME
    try:
        document = read_json(path)
    except FileNotFoundError as error:
        raise CalibrationError(f"this device is not calibrated: run {command()}") from error
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}): check its owner and mode") from error
    except ValueError as error:
        raise CalibrationError(f"{path}: is damaged ({error}): run {command()} again") from error
    if not isinstance(document, dict) or document.get("v") != VERSION:
        raise CalibrationError(f"{path}: was not written by this version: run {command()} again")
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        place = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise CalibrationError(f"{path}: {place} is not as it was written: run {command()} again") from error


def as_json(calibration: Calibration) -> str:
    """The document, for people to read as well."""
    return json.dumps(_ADAPTER.dump_python(calibration, mode="json"), indent=1, ensure_ascii=False)
