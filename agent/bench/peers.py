"""Other people's libraries in a child process, each called as its own documentation shows.

A peer's package is imported only when that peer is loaded. PyTorch's peers take the weights of the CTranslate2 folder:
the names in our `WhisperWeights` are those of OpenAI's checkpoints.
"""

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, to_float
from agent.bench.child import Driver, Heard, PeerError, Setup, tied
from agent.models.convert import hugging_face_name
from agent.models.ct2 import read_ctranslate2
from agent.models.whisper import HyperParameters

_ENGLISH_VOCABULARY = 51_864
_WINDOW_S = 30
_START_LIMIT_S = 180.0
_ANSWER_LIMIT_S = 1_800.0
_CHUNK_SAMPLES = 1_024


class _Pywhispercpp(Driver):
    """Full window, flash attention, temperature fallback with best-of 5."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        from pywhispercpp.model import Model

        quiet: dict[str, Any] = {"print_progress": False, "print_realtime": False, "print_timestamps": False}
        self._model = Model(setup.model_path, n_threads=setup.number("threads", 1), **quiet)

    def transcribe(self, pcm: Pcm16) -> Heard:
        language = "en" if self.setup.english_only else self.language or "auto"
        segments = self._model.transcribe(to_float(pcm), language=language)
        return Heard(" ".join(segment.text.strip() for segment in segments).strip())


class _FasterWhisper(Driver):
    """`WhisperModel.transcribe`: a window of 30 s, temperature fallback."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import ctranslate2
        from faster_whisper import WhisperModel

        self._same_draws = ctranslate2.set_random_seed
        self._model = WhisperModel(
            setup.model_path,
            device=setup.options.get("device", "cpu"),
            compute_type=setup.options.get("compute_type", "int8"),
            cpu_threads=setup.number("threads", 1),
            local_files_only=True,
        )
        self._options = {"beam_size": setup.number("beam", 5), "vad_filter": setup.flag("vad_filter")}

    def transcribe(self, pcm: Pcm16) -> Heard:
        self._same_draws(0)  # its fallback draws words at random; each clip gives the same text every time
        segments, _ = self._model.transcribe(to_float(pcm), language=self.language, **self._options)
        return Heard("".join(segment.text for segment in segments).strip())


class _WyomingFasterWhisper(Driver):
    """The server, over its socket, with a connection a clip, as Home Assistant talks to it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import wyoming_faster_whisper  # noqa: F401 - says early whether it is there
        from wyoming import asr, audio, event

        self._asr, self._audio, self._event = asr, audio, event
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._address: tuple[str, int] = probe.getsockname()
        self._server = subprocess.Popen(tied(self._command()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await_start()

    def transcribe(self, pcm: Pcm16) -> Heard:
        form = {"rate": SAMPLE_RATE_HZ, "width": 2, "channels": 1}
        with socket.create_connection(self._address, _ANSWER_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream: Any
            with connection.makefile("rwb") as stream:
                self._event.write_event(self._asr.Transcribe(language=self.language).event(), stream)
                self._event.write_event(self._audio.AudioStart(**form).event(), stream)
                for start in range(0, len(pcm), _CHUNK_SAMPLES):
                    chunk = pcm[start : start + _CHUNK_SAMPLES].astype("<i2").tobytes()
                    self._event.write_event(self._audio.AudioChunk(audio=chunk, **form).event(), stream)
                stopped_s = time.perf_counter()
                self._event.write_event(self._audio.AudioStop().event(), stream)
                while message := self._event.read_event(stream):
                    if self._asr.Transcript.is_type(message.type):
                        text = self._asr.Transcript.from_event(message).text.strip()
                        return Heard(text, after_sound_s=time.perf_counter() - stopped_s)
        raise PeerError("wyoming-faster-whisper closed the connection without a transcript")

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()

    def _command(self) -> list[str]:
        path, options = Path(self.setup.model_path), self.setup.options
        command = [sys.executable, "-m", "wyoming_faster_whisper", "--uri", f"tcp://127.0.0.1:{self._address[1]}"]
        command += ["--model", str(path), "--data-dir", str(path.parent), "--local-files-only"]
        command += ["--cpu-threads", str(self.setup.number("threads", 1))]
        command += ["--compute-type", options.get("compute_type", "int8")]
        command += ["--beam-size", str(self.setup.number("beam", 0))]  # 0: it chooses, 1 on ARM and 5 elsewhere
        return command + (["--vad-filter"] if self.setup.flag("vad_filter") else [])

    def _await_start(self) -> None:
        deadline_s = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline_s and self._server.poll() is None:
            try:
                socket.create_connection(self._address, timeout=1.0).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise PeerError(f"wyoming-faster-whisper did not start with {self.setup.model_path}")


class _OpenaiWhisper(Driver):
    """PyTorch, in 32-bit floats on a CPU."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import torch
        import whisper
        from whisper.model import ModelDimensions, Whisper

        torch.set_num_threads(setup.number("threads", 1))
        weights = read_ctranslate2(Path(setup.model_path))
        self._transcribe = whisper.transcribe
        self._model = Whisper(ModelDimensions(**asdict(weights.hyper)))
        self._model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.tensors.items()})
        self._model.eval()

    def transcribe(self, pcm: Pcm16) -> Heard:
        beam = self.setup.number("beam", 5)
        options = {"beam_size": beam if beam > 1 else None, "fp16": False, "verbose": None}
        return Heard(
            str(self._transcribe(self._model, to_float(pcm), language=self.language, **options)["text"]).strip()
        )


class _Transformers(Driver):
    """Hugging Face: `WhisperForConditionalGeneration.generate`, in 32-bit floats on a CPU."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import torch
        import transformers

        torch.set_num_threads(setup.number("threads", 1))
        self._no_gradients = torch.inference_mode
        folder = Path(setup.model_path)
        weights = read_ctranslate2(folder)
        self._multilingual = weights.hyper.n_vocab != _ENGLISH_VOCABULARY
        self._tokenizer = transformers.WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self._extractor = transformers.WhisperFeatureExtractor(feature_size=weights.hyper.n_mels)
        end = self._token("<|endoftext|>")
        tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        tokens["decoder_start_token_id"] = self._token("<|startoftranscript|>")
        config = transformers.WhisperConfig(**_sizes(weights.hyper), **tokens)
        self._model = transformers.WhisperForConditionalGeneration(config)
        tensors = {hugging_face_name(name): torch.tensor(tensor).float() for name, tensor in weights.tensors.items()}
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
        self._model.load_state_dict(tensors)
        published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._model.generation_config = self._generation(transformers.GenerationConfig, published, tokens)
        self._model.eval()

    def transcribe(self, pcm: Pcm16) -> Heard:
        long = len(pcm) > _WINDOW_S * SAMPLE_RATE_HZ
        features = self._extractor(
            to_float(pcm),
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=not long,
            padding="longest" if long else "max_length",
        )
        choice = {"language": self.language, "task": "transcribe"} if self._multilingual else {}
        with self._no_gradients():
            tokens = self._model.generate(
                features.input_features,
                attention_mask=features.attention_mask,
                num_beams=self.setup.number("beam", 5),
                return_timestamps=long,
                **choice,
            )
        return Heard(self._tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip())

    def _token(self, text: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(text))

    def _generation(self, kind: Any, published: dict[str, Any], tokens: dict[str, int]) -> Any:
        """What the checkpoint's own `generation_config.json` says; CTranslate2's `config.json` kept the token lists."""
        generation = kind(
            **tokens,
            suppress_tokens=published["suppress_ids"],
            begin_suppress_tokens=published["suppress_ids_begin"],
            max_length=448,
        )
        generation.is_multilingual = self._multilingual
        generation.no_timestamps_token_id = self._token("<|notimestamps|>")
        generation.prev_sot_token_id = self._token("<|startofprev|>")
        generation.return_timestamps = False
        if self._multilingual:
            generation.task_to_id = {task: self._token(f"<|{task}|>") for task in ("transcribe", "translate")}
            names = self._tokenizer.convert_ids_to_tokens(published["lang_ids"])
            generation.lang_to_id = dict(zip(names, published["lang_ids"], strict=True))
        return generation


def _sizes(hyper: HyperParameters) -> dict[str, int]:
    """The same numbers under the names of `WhisperConfig`."""
    return {
        "vocab_size": hyper.n_vocab,
        "num_mel_bins": hyper.n_mels,
        "d_model": hyper.n_audio_state,
        "encoder_layers": hyper.n_audio_layer,
        "encoder_attention_heads": hyper.n_audio_head,
        "encoder_ffn_dim": 4 * hyper.n_audio_state,
        "decoder_layers": hyper.n_text_layer,
        "decoder_attention_heads": hyper.n_text_head,
        "decoder_ffn_dim": 4 * hyper.n_text_state,
        "max_source_positions": hyper.n_audio_ctx,
        "max_target_positions": hyper.n_text_ctx,
    }


_PEERS = {
    "stock-pywhispercpp": _Pywhispercpp,
    "stock-faster-whisper": _FasterWhisper,
    "wyoming-faster-whisper": _WyomingFasterWhisper,
    "openai-whisper": _OpenaiWhisper,
    "transformers": _Transformers,
}


def create(setup: Setup) -> Driver:
    """Load the peer that `setup` names; ImportError if its package is not installed."""
    return _PEERS[setup.adapter](setup)
