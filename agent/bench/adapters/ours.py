"""The agent's own engines; with the option `vad`, behind its own voice activity detection and segmenter."""

from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from agent.asr import Engine
from agent.asr.factory import create_engine
from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, frames_of
from agent.bench.adapters import Setup
from agent.bench.systems import VAD_OPTION, Adapter, engine_settings, listening_settings
from agent.bench.wire_format import Heard, PeerError
from agent.config.settings import EngineSettings
from agent.segmenter import Segmenter, utterances_in
from agent.vad.factory import create_detector

_LONGEST_WHOLE_S = 29.0
"""What an engine takes in one piece; anything longer goes through the segmenter in any case."""


class _Ours:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._always_segment = setup.flag(VAD_OPTION)
        self._engine: Engine | None = None
        self._language = ""
        self._clips = 0
        self.prepare("en")

    def prepare(self, language: str) -> None:
        """The language is a setting of the engine, so another one means another engine."""
        wanted = self._setup.language(language) or "auto"
        if wanted != self._language:
            self.close()
            self._engine = create_engine(_settings(self._setup, wanted), self._setup.model_path)
            self._language = wanted

    def transcribe(self, pcm: Pcm16) -> Heard:
        self._clips += 1
        whole = not self._always_segment and len(pcm) <= _LONGEST_WHOLE_S * SAMPLE_RATE_HZ
        utterances = [_utterance(pcm, f"clip-{self._clips}")] if whole else segment(pcm, self._setup.options)
        if self._engine is None:
            raise PeerError(f"{self._setup.adapter}: transcribe after close")
        return combine([(utterance, self._engine.transcribe(utterance)) for utterance in utterances])

    def close(self) -> None:
        if self._engine:
            self._engine.close()
            self._engine = None


def segment(pcm: Pcm16, options: Mapping[str, str] | None = None) -> Iterator[Utterance]:
    """The utterances that the agent makes of `pcm`, shape (n,), in order; `options` are those of a system."""
    vad, settings = listening_settings(options or {})
    numbers = iter(range(1_000_000))
    segmenter = Segmenter(settings, vad.threshold, lambda: f"utterance-{next(numbers)}")
    return utterances_in(frames_of([pcm]), create_detector(vad), segmenter)


def combine(heard: list[tuple[Utterance, Transcript]]) -> Heard:
    """One answer for a clip: what would be published, and what the evidence held back."""
    transcripts = [transcript for _, transcript in heard]
    published = [transcript for transcript in transcripts if transcript.verdict is not Verdict.REJECTED]
    pieces = [
        (utterance.position, utterance.position + len(utterance.pcm), transcript.text)
        for utterance, transcript in heard
        if transcript.text and transcript.verdict is not Verdict.REJECTED
    ]
    return Heard(
        text=" ".join(text for _, _, text in pieces),
        rejected=len(transcripts) - len(published),
        doubtful=sum(transcript.verdict is Verdict.DOUBTFUL for transcript in published),
        retries=sum(transcript.retries for transcript in transcripts),
        audio_ctx=max((transcript.audio_ctx for transcript in transcripts), default=0),
        pieces=pieces,
    )


def _utterance(pcm: Pcm16, utterance_id: str) -> Utterance:
    return Utterance(utterance_id, pcm, position=0, started_ns=0, speech_end=len(pcm), closed_at=len(pcm))


def _settings(setup: Setup, language: str) -> EngineSettings:
    chosen = engine_settings(Adapter(setup.adapter), setup.model, setup.options, language)
    try:
        settings: EngineSettings = TypeAdapter(EngineSettings).validate_python(chosen)
    except ValidationError as error:
        problem = error.errors()[0]
        key = problem["loc"][-1]
        raise PeerError(
            f"{setup.adapter}: option {key}: {problem['msg']}; docs/settings.md has what there is"
        ) from None
    return settings


create = _Ours
