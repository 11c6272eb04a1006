"""Run other libraries as systems, each called as its own documentation shows.

A function imports the package of its peer only when it loads that peer. The PyTorch peers take the weights of a
CTranslate2 folder, because the names in `WhisperWeights` are those of OpenAI's checkpoints.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, to_float
from agent.bench.child import Adapter, Heard, PeerError, System, Transcribe, tied
from agent.models.convert import hugging_face_name
from agent.models.ct2 import read_ctranslate2
from agent.models.whisper import HyperParameters

_ENGLISH_VOCABULARY = 51_864
_WINDOW_S = 30
_START_LIMIT_S = 180.0
_ANSWER_LIMIT_S = 1_800.0
_CHUNK_SAMPLES = 1_024


def load(system: System) -> AbstractContextManager[Transcribe]:
    """Load a peer; entering the context raises ImportError if its package is not installed."""
    peers = {
        Adapter.STOCK_PYWHISPERCPP: _pywhispercpp,
        Adapter.STOCK_FASTER_WHISPER: _faster_whisper,
        Adapter.WYOMING_FASTER_WHISPER: _wyoming_faster_whisper,
        Adapter.OPENAI_WHISPER: _openai_whisper,
        Adapter.TRANSFORMERS: _transformers,
    }
    return peers[system.adapter](system)


def _or_detect(language: str) -> str | None:
    """Return the language in the peers' spelling: None to detect it."""
    return None if language == "auto" else language


@contextmanager
def _pywhispercpp(system: System) -> Iterator[Transcribe]:
    """Full window, flash attention, temperature fallback with best-of 5."""
    from pywhispercpp.model import Model

    quiet: dict[str, Any] = {"print_progress": False, "print_realtime": False, "print_timestamps": False}
    model = Model(system.path, n_threads=system.number("threads", 1), **quiet)

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        segments = model.transcribe(to_float(pcm), language="en" if system.english_only else language)
        return Heard(" ".join(segment.text.strip() for segment in segments).strip())

    yield transcribe


@contextmanager
def _faster_whisper(system: System) -> Iterator[Transcribe]:
    """`WhisperModel.transcribe`: a window of 30 s, temperature fallback."""
    import ctranslate2
    from faster_whisper import WhisperModel

    model = WhisperModel(
        system.path,
        device=system.options.get("device", "cpu"),
        compute_type=system.options.get("compute_type", "int8"),
        cpu_threads=system.number("threads", 1),
        local_files_only=True,
    )
    options: dict[str, Any] = {"beam_size": system.number("beam", 5), "vad_filter": system.flag("vad_filter")}

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        ctranslate2.set_random_seed(0)  # the fallback samples words; with one seed, a clip always gives the same text
        segments, _ = model.transcribe(to_float(pcm), language=_or_detect(language), **options)
        return Heard("".join(segment.text for segment in segments).strip())

    yield transcribe


@contextmanager
def _wyoming_faster_whisper(system: System) -> Iterator[Transcribe]:
    """The server, over its socket, with a connection for each clip, as Home Assistant uses it."""
    import wyoming_faster_whisper  # noqa: F401 - an ImportError now is clearer than a server that does not start
    from wyoming import asr, audio, event

    form = {"rate": SAMPLE_RATE_HZ, "width": 2, "channels": 1}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address: tuple[str, int] = probe.getsockname()

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        with socket.create_connection(address, _ANSWER_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream: Any
            with connection.makefile("rwb") as stream:
                event.write_event(asr.Transcribe(language=_or_detect(language)).event(), stream)
                event.write_event(audio.AudioStart(**form).event(), stream)
                for start in range(0, len(pcm), _CHUNK_SAMPLES):
                    chunk = pcm[start : start + _CHUNK_SAMPLES].astype("<i2").tobytes()
                    event.write_event(audio.AudioChunk(audio=chunk, **form).event(), stream)
                stopped_s = time.perf_counter()
                event.write_event(audio.AudioStop().event(), stream)
                while message := event.read_event(stream):
                    if asr.Transcript.is_type(message.type):
                        text = asr.Transcript.from_event(message).text.strip()
                        return Heard(text, after_sound_s=time.perf_counter() - stopped_s)
        raise PeerError("wyoming-faster-whisper closed the connection without a transcript")

    command = [sys.executable, "-m", "wyoming_faster_whisper", "--uri", f"tcp://127.0.0.1:{address[1]}"]
    command += ["--model", system.path, "--data-dir", str(Path(system.path).parent), "--local-files-only"]
    command += ["--cpu-threads", str(system.number("threads", 1))]
    command += ["--compute-type", system.options.get("compute_type", "int8")]
    command += ["--beam-size", str(system.number("beam", 0))]  # 0: the server chooses, 1 on ARM and 5 elsewhere
    command += ["--vad-filter"] if system.flag("vad_filter") else []
    with subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _await_start(server, address, system.path)
            yield transcribe
        finally:
            server.terminate()


def _await_start(server: "subprocess.Popen[bytes]", address: tuple[str, int], model: str) -> None:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            socket.create_connection(address, timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise PeerError(f"wyoming-faster-whisper did not start with {model}")


@contextmanager
def _openai_whisper(system: System) -> Iterator[Transcribe]:
    """PyTorch, in 32-bit floats on a CPU."""
    import torch
    import whisper
    from whisper.model import ModelDimensions, Whisper

    torch.set_num_threads(system.number("threads", 1))
    weights = read_ctranslate2(Path(system.path))
    model = Whisper(ModelDimensions(**asdict(weights.hyper)))
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.tensors.items()})
    model.eval()
    beam = system.number("beam", 5)
    options: dict[str, Any] = {"beam_size": beam if beam > 1 else None, "fp16": False, "verbose": None}

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        result = whisper.transcribe(model, to_float(pcm), language=_or_detect(language), **options)
        return Heard(str(result["text"]).strip())

    yield transcribe


@contextmanager
def _transformers(system: System) -> Iterator[Transcribe]:
    """Hugging Face: `WhisperForConditionalGeneration.generate`, in 32-bit floats on a CPU."""
    import torch
    import transformers

    torch.set_num_threads(system.number("threads", 1))
    folder, beams = Path(system.path), system.number("beam", 5)
    weights = read_ctranslate2(folder)
    multilingual = weights.hyper.n_vocab != _ENGLISH_VOCABULARY
    tokenizer = transformers.WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    extractor = transformers.WhisperFeatureExtractor(feature_size=weights.hyper.n_mels)
    end, start = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>"])
    tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**_sizes(weights.hyper), **tokens))
    tensors = {hugging_face_name(name): torch.tensor(tensor).float() for name, tensor in weights.tensors.items()}
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
    model.load_state_dict(tensors)
    published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model.generation_config = transformers.GenerationConfig(
        **tokens, **_generation(tokenizer, published, multilingual=multilingual)
    )
    model.eval()

    def transcribe(pcm: Pcm16, language: str) -> Heard:
        long = len(pcm) > _WINDOW_S * SAMPLE_RATE_HZ
        features = extractor(
            to_float(pcm),
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=not long,
            padding="longest" if long else "max_length",
        )
        choice = {"language": _or_detect(language), "task": "transcribe"} if multilingual else {}
        with torch.inference_mode():
            found = model.generate(
                features.input_features,
                attention_mask=features.attention_mask,
                num_beams=beams,
                return_timestamps=long,
                **choice,
            )
        return Heard(tokenizer.batch_decode(found, skip_special_tokens=True)[0].strip())

    yield transcribe


def _generation(tokenizer: Any, published: dict[str, Any], *, multilingual: bool) -> dict[str, Any]:
    """Return what the checkpoint's `generation_config.json` says. CTranslate2's `config.json` has its token lists."""
    no_timestamps, previous, *tasks = tokenizer.convert_tokens_to_ids(
        ["<|notimestamps|>", "<|startofprev|>", "<|transcribe|>", "<|translate|>"]
    )
    settings = {
        "suppress_tokens": published["suppress_ids"],
        "begin_suppress_tokens": published["suppress_ids_begin"],
        "max_length": 448,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": no_timestamps,
        "prev_sot_token_id": previous,
        "return_timestamps": False,
    }
    if multilingual:
        settings["task_to_id"] = dict(zip(("transcribe", "translate"), tasks, strict=True))
        names = tokenizer.convert_ids_to_tokens(published["lang_ids"])
        settings["lang_to_id"] = dict(zip(names, published["lang_ids"], strict=True))
    return settings


def _sizes(hyper: HyperParameters) -> dict[str, int]:
    """Return the sizes under the names of `WhisperConfig`."""
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
