"""openai-whisper (PyTorch) as its README shows it, in 32-bit floats on a CPU.

Its weights come from the CTranslate2 folder: the names in our `WhisperWeights` are those of OpenAI's checkpoints.
"""

import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from agent.audio.frames import Pcm16, to_float
from agent.bench.adapters import Setup
from agent.bench.wire_format import Heard
from agent.models.ct2 import read_ctranslate2


class _OpenaiWhisper:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.number("threads", 1))
        self._setup = setup
        self._beam = setup.number("beam", 5)
        self._language: str | None = None
        weights = read_ctranslate2(setup.model_path)
        hyper = weights.hyper
        dimensions = ModelDimensions(
            n_mels=hyper.n_mels,
            n_audio_ctx=hyper.n_audio_ctx,
            n_audio_state=hyper.n_audio_state,
            n_audio_head=hyper.n_audio_head,
            n_audio_layer=hyper.n_audio_layer,
            n_vocab=hyper.n_vocab,
            n_text_ctx=hyper.n_text_ctx,
            n_text_state=hyper.n_text_state,
            n_text_head=hyper.n_text_head,
            n_text_layer=hyper.n_text_layer,
        )
        self._model: Whisper = Whisper(dimensions)
        self._model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.tensors.items()})
        self._model.eval()

    def prepare(self, language: str) -> None:
        self._language = self._setup.language(language)

    def transcribe(self, pcm: Pcm16) -> Heard:
        beam = self._beam if self._beam > 1 else None
        result = whisper.transcribe(
            self._model, to_float(pcm), language=self._language, beam_size=beam, fp16=False, verbose=None
        )
        return Heard(str(result["text"]).strip())

    def close(self) -> None:
        pass


create = _OpenaiWhisper
