"""From settings to what Home Assistant is told."""

import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from wyoming.event import read_event, write_event
from wyoming.info import Describe, Info

from agent.asr.scripted import Scripted
from agent.asr.transcriber import Transcriber
from agent.channel import Overflow
from agent.config.settings import AssistSettings, ScriptedSettings, Settings
from agent.config.types import WHISPER
from agent.messages import State
from agent.models.ggml import write_ggml
from agent.worker import Worker
from agent.wyoming import open_assist
from tests.model_files import USABLE, small_weights, usable_weights


def never(worker: Worker) -> None:
    """The thread must not fail."""
    raise AssertionError(worker.failure)


def languages(port: int) -> list[str]:
    """What a description of the service says."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    with client, cast("BinaryIO", client.makefile("rwb")) as stream:
        write_event(Describe().event(), stream)
        event = read_event(stream)
    assert event is not None
    (program,) = Info.from_event(event).asr
    return program.models[0].languages


def test_the_languages_are_those_of_the_model_in_force(tmp_path: Path) -> None:
    """Told anew after a command or a reload has loaded another one. The file tells, whatever it is called."""
    english, multilingual = str(tmp_path / "mine.bin"), str(tmp_path / "ggml-base.en.bin")
    write_ggml(usable_weights(), Path(english))
    write_ggml(small_weights(0, replace(USABLE, n_vocab=51_865)), Path(multilingual))
    values = {"engine": "whisper_cpp", "model": "tiny.en-q8_0", "language": "auto", "vad_threshold": 0.5}
    in_force = State.model_validate({"listening": True, **values})
    told = [in_force]
    transcriber = Transcriber(Scripted(ScriptedSettings()), cast("Any", None), 1, Overflow.WAIT)
    settings = Settings(assist=AssistSettings(enabled=True, port=0))
    server = open_assist(settings, transcriber, lambda: told[-1], never)
    with closing(server):
        assert languages(server.port) == ["en"]
        for model, language, expected in (
            ("base-q8_0", "auto", list(WHISPER)),
            ("base-q8_0", "fr", ["fr"]),
            (english, "auto", ["en"]),
            (multilingual, "auto", list(WHISPER)),
        ):
            told.append(in_force.model_copy(update={"model": model, "language": language}))
            assert languages(server.port) == expected
