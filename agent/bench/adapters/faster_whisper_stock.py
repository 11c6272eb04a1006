"""faster-whisper as its README shows it: `WhisperModel.transcribe`, a window of 30 s, temperature fallback."""

import ctranslate2
from faster_whisper import WhisperModel

from agent.audio.frames import Pcm16, to_float
from agent.bench.adapters import Setup
from agent.bench.wire_format import Heard


class _StockFasterWhisper:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._beam = setup.number("beam", 5)
        self._vad = setup.flag("vad_filter")
        self._language: str | None = None
        self._model = WhisperModel(
            str(setup.model_path),
            device=setup.options.get("device", "cpu"),
            compute_type=setup.options.get("compute_type", "int8"),
            cpu_threads=setup.number("threads", 1),
            local_files_only=True,
        )

    def prepare(self, language: str) -> None:
        self._language = self._setup.language(language)

    def transcribe(self, pcm: Pcm16) -> Heard:
        ctranslate2.set_random_seed(0)  # its fallback draws words at random; each clip gives the same text every time
        segments, _ = self._model.transcribe(
            to_float(pcm), language=self._language, beam_size=self._beam, vad_filter=self._vad
        )
        return Heard("".join(segment.text for segment in segments).strip())

    def close(self) -> None:
        pass


create = _StockFasterWhisper
