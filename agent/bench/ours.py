"""The agent's own engines in a child process; with the option `vad`, behind its own voice activity detection."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.asr import Engine, create_engine
from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, frames_of
from agent.bench.child import Driver, Heard, PeerError, Setup
from agent.bench.systems import VAD_OPTION, Adapter, engine_settings, listening_settings
from agent.config.settings import EngineSettings
from agent.segmenter import Segmenter, utterances_in
from agent.vad import create_detector

_LONGEST_WHOLE_S = 29.0
"""What an engine takes in one piece; anything longer goes through the segmenter in any case."""


class Ours(Driver):
    """One of our engines."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._engine: Engine | None = None
        self.prepare("en")

    def prepare(self, language: str) -> None:
        """The language is a setting of the engine, so another one means another engine."""
        before = self.language
        super().prepare(language)
        if self._engine is None or self.language != before:
            self.close()
            self._engine = create_engine(_settings(self.setup, self.language or "auto"), Path(self.setup.model_path))

    def transcribe(self, pcm: Pcm16) -> Heard:
        """Whole, or in the utterances that the segmenter makes of it."""
        if self._engine is None:
            raise PeerError(f"{self.setup.adapter}: transcribe after close")
        whole = not self.setup.flag(VAD_OPTION) and len(pcm) <= _LONGEST_WHOLE_S * SAMPLE_RATE_HZ
        utterances = [utterance_of(pcm)] if whole else segment(pcm, self.setup.options)
        return combine([(utterance, self._engine.transcribe([utterance])[0]) for utterance in utterances])

    def close(self) -> None:
        """Free the model; idempotent."""
        if self._engine:
            self._engine.close()
            self._engine = None


create = Ours


def utterance_of(pcm: Pcm16) -> Utterance:
    """All of `pcm`, shape (n,), as one utterance."""
    return Utterance("clip", pcm, position=0, started_ns=0, speech_end=len(pcm), closed_at=len(pcm))


def segment(pcm: Pcm16, options: Mapping[str, str]) -> Iterator[Utterance]:
    """The utterances that the agent makes of `pcm`, shape (n,), in order; `options` are those of a system."""
    vad, settings = listening_settings(options)
    segmenter = Segmenter(settings, vad.threshold, lambda: "utterance")
    return utterances_in(frames_of([pcm]), create_detector(vad), segmenter)


def combine(heard: list[tuple[Utterance, Transcript]]) -> Heard:
    """One answer for a clip: what would be published, and what the evidence held back."""
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


def _settings(setup: Setup, language: str) -> EngineSettings:
    chosen = engine_settings(Adapter(setup.adapter), setup.model, setup.options, language)
    try:
        settings: EngineSettings = TypeAdapter(EngineSettings).validate_python(chosen)
    except ValidationError as error:
        problem = error.errors()[0]
        raise PeerError(
            f"{setup.adapter}: option {problem['loc'][-1]}: {problem['msg']}; docs/settings.md has the options"
        ) from None
    return settings
