"""Hugging Face Transformers: `WhisperForConditionalGeneration.generate`, in 32-bit floats on a CPU.

Its weights come from the CTranslate2 folder, tensor by tensor; the names are those of `modeling_whisper.py`.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, to_float
from agent.bench.adapters import Setup
from agent.bench.wire_format import Heard
from agent.models.ct2 import read_ctranslate2
from agent.models.whisper import HyperParameters

_RENAMED = (
    ("encoder.conv", "encoder.conv"),
    (".blocks.", ".layers."),
    ("positional_embedding", "embed_positions.weight"),
    ("token_embedding", "embed_tokens"),
    (".cross_attn_ln", ".encoder_attn_layer_norm"),
    (".cross_attn.", ".encoder_attn."),
    (".attn_ln", ".self_attn_layer_norm"),
    (".attn.", ".self_attn."),
    (".query", ".q_proj"),
    (".key", ".k_proj"),
    (".value", ".v_proj"),
    ("_attn.out.", "_attn.out_proj."),
    (".mlp_ln", ".final_layer_norm"),
    (".mlp.0", ".fc1"),
    (".mlp.2", ".fc2"),
    ("ln_post", "layer_norm"),
    ("decoder.ln.", "decoder.layer_norm."),
)
_WINDOW_S = 30


class _Transformers:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.number("threads", 1))
        self._setup = setup
        self._beam = setup.number("beam", 5)
        self._language: str | None = None
        weights = read_ctranslate2(setup.model_path)
        self._multilingual = weights.hyper.n_vocab != _ENGLISH_VOCABULARY
        self._tokenizer = WhisperTokenizerFast(tokenizer_file=str(setup.model_path / "tokenizer.json"))
        self._extractor = WhisperFeatureExtractor(feature_size=weights.hyper.n_mels)
        self._model = WhisperForConditionalGeneration(_config(weights.hyper, self._token))
        tensors = {f"model.{_renamed(name)}": torch.tensor(tensor) for name, tensor in weights.tensors.items()}
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
        self._model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        self._model.generation_config = self._generation(json.loads((setup.model_path / "config.json").read_text()))
        self._model.eval()

    def prepare(self, language: str) -> None:
        self._language = self._setup.language(language) if self._multilingual else None

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
        choice = {"language": self._language, "task": "transcribe"} if self._multilingual else {}
        with torch.inference_mode():
            tokens = self._model.generate(
                features.input_features,
                attention_mask=features.attention_mask,
                num_beams=self._beam,
                return_timestamps=long,
                **choice,
            )
        return Heard(self._tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip())

    def close(self) -> None:
        pass

    def _token(self, text: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(text))

    def _generation(self, config: Mapping[str, Any]) -> GenerationConfig:
        """What the checkpoint's own `generation_config.json` says; CTranslate2's `config.json` kept the token lists."""
        end = self._token("<|endoftext|>")
        generation = GenerationConfig(
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=self._token("<|startoftranscript|>"),
            suppress_tokens=config["suppress_ids"],
            begin_suppress_tokens=config["suppress_ids_begin"],
            max_length=448,
        )
        generation.is_multilingual = self._multilingual
        generation.no_timestamps_token_id = self._token("<|notimestamps|>")
        generation.prev_sot_token_id = self._token("<|startofprev|>")
        generation.return_timestamps = False
        if self._multilingual:
            generation.task_to_id = {task: self._token(f"<|{task}|>") for task in ("transcribe", "translate")}
            names = self._tokenizer.convert_ids_to_tokens(config["lang_ids"])
            generation.lang_to_id = dict(zip(names, config["lang_ids"], strict=True))
        return generation


_ENGLISH_VOCABULARY = 51_864


def _config(hyper: HyperParameters, token: Any) -> WhisperConfig:
    end = token("<|endoftext|>")
    return WhisperConfig(
        vocab_size=hyper.n_vocab,
        num_mel_bins=hyper.n_mels,
        d_model=hyper.n_audio_state,
        encoder_layers=hyper.n_audio_layer,
        encoder_attention_heads=hyper.n_audio_head,
        encoder_ffn_dim=4 * hyper.n_audio_state,
        decoder_layers=hyper.n_text_layer,
        decoder_attention_heads=hyper.n_text_head,
        decoder_ffn_dim=4 * hyper.n_text_state,
        max_source_positions=hyper.n_audio_ctx,
        max_target_positions=hyper.n_text_ctx,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=token("<|startoftranscript|>"),
    )


def _renamed(name: str) -> str:
    for openai, transformers in _RENAMED:
        name = name.replace(openai, transformers)
    return name


create = _Transformers
