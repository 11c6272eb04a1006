"""pywhispercpp as its README shows it: full window, flash attention, temperature fallback with best-of 5."""

from pywhispercpp.model import Model

from agent.audio.frames import Pcm16, to_float
from agent.bench.adapters import Setup
from agent.bench.wire_format import Heard


class _StockPywhispercpp:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._language = "en"
        self._model = Model(
            str(setup.model_path),
            n_threads=setup.number("threads", 1),
            print_progress=False,
            print_realtime=False,
            print_timestamps=False,
        )

    def prepare(self, language: str) -> None:
        self._language = "en" if self._setup.english_only else self._setup.language(language) or "auto"

    def transcribe(self, pcm: Pcm16) -> Heard:
        segments = self._model.transcribe(to_float(pcm), language=self._language)
        return Heard(" ".join(segment.text.strip() for segment in segments).strip())

    def close(self) -> None:
        pass


create = _StockPywhispercpp
