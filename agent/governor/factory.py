"""The ladder of this device: from its settings, its calibration, and the models that it has."""

import logging

from agent.config.layers import models_dir, state_dir
from agent.config.settings import EngineSettings, ScriptedSettings, Settings
from agent.governor.ladder import Level, Rung, build_ladder, catalogued_rungs, measured_rungs
from agent.governor.spool import Spool
from agent.models.calibrated import usable
from agent.models.calibration_file import CalibrationError, folder_of, read_calibration
from agent.models.candidates import engine_for, for_language
from agent.models.catalogue import load_catalogue
from agent.models.chosen import format_for
from agent.models.languages import knows
from agent.models.store import Store

log = logging.getLogger(__name__)


def create_ladder(settings: Settings, top: EngineSettings) -> tuple[Level, ...]:
    """The levels below `top`, which is what the settings and commands ask for.

    Raises:
        ModelError: `governor.models` or `governor.floor` names a model that nobody knows.
    """
    if isinstance(top, ScriptedSettings):
        return build_ladder(top, ())
    store = Store(models_dir(settings), load_catalogue())
    floor = settings.governor.floor
    if floor and floor != top.model:
        store.catalogue.find(floor)
    rungs = _named(settings.governor.models, top.language, store) or _measured(settings, top.model, top.language, store)
    if not rungs and top.model in store.catalogue:
        models = for_language(store.installed(format_for(top)), top.language)
        rungs = catalogued_rungs(models, store.catalogue.find(top.model), top.kind)
    ladder = build_ladder(top, rungs, floor)
    if floor and floor not in {level.model for level in ladder}:
        log.warning(f"governor.floor: {floor} is not among the models that may take over; it changes nothing")
    return ladder


def create_spool(settings: Settings) -> Spool | None:
    """Where utterances are kept for later; None where they are not to be, and then what lies there is deleted."""
    folder, max_bytes = state_dir(settings), settings.governor.spool_mib << 20
    if settings.governor.enabled and max_bytes and settings.publish.privacy == "full":
        return Spool(folder, max_bytes)
    Spool(folder, 0).purge()
    return None


def _named(names: tuple[str, ...], language: str, store: Store) -> tuple[Rung, ...]:
    models = [store.catalogue.find(name) for name in names]
    if foreign := [model.name for model in models if not knows(model.name, language)]:
        log.warning(f'governor.models: {", ".join(foreign)} cannot take over: engine.language is "{language}"')
        models = [model for model in models if model.name not in foreign]
    if missing := [model.name for model in models if not store.has(model.name)]:
        log.warning(
            f"governor.models: {', '.join(missing)} not on this device: run `edgescribe models pull {missing[0]}`"
        )
    return tuple(Rung(engine_for(model), model.name) for model in models if store.has(model.name))


def _measured(settings: Settings, model: str, language: str, store: Store) -> tuple[Rung, ...]:
    try:
        calibration = read_calibration(folder_of(settings))
    except CalibrationError:
        return ()
    return measured_rungs(usable(calibration.measurements, language, store), model)
