"""Whisper's no-speech probability, where the binding is not the one that was looked at."""

import pytest

from agent.asr import whisper_cpp


def test_an_unknown_binding_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory may be laid out otherwise: the probability is unknown, and nothing else is."""
    monkeypatch.setattr(whisper_cpp, "version", lambda _name: "2.0.0")
    assert whisper_cpp.no_speech_reader(object())(1) is None
