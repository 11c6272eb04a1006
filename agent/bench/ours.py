"""Run the agent's own engines as systems; with the option `vad`, behind detector and segmenter as in the agent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.asr import Engine, create_engine
from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, frames_of
from agent.bench.child import BUSY_OPTION, Adapter, Heard, System, Transcribe
from agent.config.settings import EngineSettings, SegmenterSettings, VadSettings
from agent.errors import ConfigError
from agent.segmenter import Segmenter, utterances_in
from agent.vad import create_detector

VAD_OPTION = "vad"
"""Option of our engines: put detector and segmenter in front, as in the agent."""
_DETECTOR_OPTIONS = ("threshold", "gate")
_LONGEST_WHOLE_S = 29.0
"""An engine takes this much in one piece. Longer clips always go through the segmenter."""


@contextmanager
def load(system: System) -> Iterator[Transcribe]:
    """Load one of our engines. It is loaded again for another language, which is a setting of the engine."""
    engines: dict[str, Engine] = {}

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        if language not in engines:
            while engines:
                engines.popitem()[1].close()
            engines[language] = create_engine(validated(system, language), Path(system.path))
        whole = not system.flag(VAD_OPTION) and len(pcm) <= _LONGEST_WHOLE_S * SAMPLE_RATE_HZ
        utterances = [whole_utterance(pcm)] if whole else segment(pcm, system.options)
        return _combine([(utterance, engines[language].transcribe([utterance])[0]) for utterance in utterances])

    yield transcribe
    for engine in engines.values():
        engine.close()


def whole_utterance(pcm: Pcm16) -> Utterance:
    """Return all of `pcm`, shape (n,), as one utterance."""
    return Utterance("clip", pcm, position=0, started_ns=0, speech_end=len(pcm), closed_at=len(pcm))


def segment(pcm: Pcm16, options: Mapping[str, str]) -> Iterator[Utterance]:
    """Yield the utterances that the agent makes of `pcm`, shape (n,); `options` are the options of a system."""
    vad, settings = listening_settings(options)
    segmenter = Segmenter(settings, vad.threshold, lambda: "utterance")
    return utterances_in(frames_of([pcm]), create_detector(vad), segmenter)


def _combine(heard: list[tuple[Utterance, Transcript]]) -> Heard:
    published = [(utterance, one) for utterance, one in heard if one.verdict is not Verdict.REJECTED]
    pieces = [
        (utterance.position, utterance.position + len(utterance.pcm), one.text)
        for utterance, one in published
        if one.text
    ]
    return Heard(
        text=" ".join(text for _, _, text in pieces),
        rejected=len(heard) - len(published),
        doubtful=sum(one.verdict is Verdict.DOUBTFUL for _, one in published),
        retries=sum(one.retries for _, one in heard),
        pieces=tuple(pieces),
    )


def engine_settings(system: System, language: str) -> dict[str, str]:
    """Return the keys of `[engine]` for one of our engines; an option of the system goes before `language`."""
    others = {VAD_OPTION, BUSY_OPTION, *_DETECTOR_OPTIONS, *SegmenterSettings.model_fields}
    chosen = {"language": language, **system.options, "model": system.model, "kind": system.adapter.value}
    if system.adapter is Adapter.SCRIPTED:
        others |= {"model", "threads"}
    return {key: value for key, value in chosen.items() if key not in others}


def validated(system: System, language: str) -> EngineSettings:
    """Return the settings of one of our engines.

    Raises:
        ConfigError: an option is unknown, or its value is out of bounds.
    """
    try:
        settings: EngineSettings = TypeAdapter(EngineSettings).validate_python(engine_settings(system, language))
    except ValidationError as error:
        raise _problem(error) from None
    return settings


def listening_settings(options: Mapping[str, str]) -> tuple[VadSettings, SegmenterSettings]:
    """Return the settings of detector and segmenter: the options of a system, else the defaults.

    Raises:
        ConfigError: a value is out of bounds.
    """
    vad = {key: value for key, value in options.items() if key in _DETECTOR_OPTIONS}
    segmenter = {key: value for key, value in options.items() if key in SegmenterSettings.model_fields}
    try:
        return VadSettings.model_validate(vad), SegmenterSettings.model_validate(segmenter)
    except ValidationError as error:
        raise _problem(error) from None


def _problem(error: ValidationError) -> ConfigError:
    problem = error.errors()[0]
    return ConfigError(f"--system: option {problem['loc'][-1]}: {problem['msg']}; docs/settings.md lists the options")
