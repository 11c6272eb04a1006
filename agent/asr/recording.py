"""A recording from end to end in one thread, without a broker: for `edgescribe transcribe`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.asr import Engine
from agent.asr.loading import create_segmenter
from agent.audio.frames import Utterance
from agent.audio.wav import WavSource
from agent.config.settings import Settings, WavSettings
from agent.messages.transcript import Transcript, Verdict
from agent.segmenter import utterances_in
from agent.vad import create_detector


@dataclass(frozen=True, slots=True)
class Passage:
    """An utterance of the recording, with its words."""

    utterance: Utterance
    transcript: Transcript


def transcribe(path: Path, settings: Settings, engine: Engine, channel: int | None = None) -> Iterator[Passage]:
    """Yield the passages of a recording in which words were found, as soon as each is transcribed.

    `channel` counts from 1; None mixes all of them.

    Raises:
        SourceError: the file cannot be read; or, behind the last passage, some of it could not be read.
        EngineError: the engine failed.
    """
    for utterance in _utterances(WavSettings(path=path, pace="flat_out", channel=channel), settings):
        transcript = engine.transcribe(utterance)
        if transcript.text and transcript.verdict is not Verdict.REJECTED:
            yield Passage(utterance, transcript)


def _utterances(recording: WavSettings, settings: Settings) -> Iterator[Utterance]:
    source = WavSource(recording)
    try:
        yield from utterances_in(iter(source.read, None), create_detector(settings.vad), create_segmenter(settings))
    finally:
        source.close()
