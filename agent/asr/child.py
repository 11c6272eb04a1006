"""The engine process after its confinement: it loads one engine, and answers the agent's questions one by one.

Its only connection is a socket (`pipe.py`). It sends `ready` when the model is loaded, then answers each question with
transcripts or an error, until the agent closes the socket.
"""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

from agent.asr import Engine, create_engine
from agent.asr.own_time import STARVED_WEIGHT
from agent.asr.pipe import Packet, receive, receive_utterances, send
from agent.errors import AgentError, EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import EngineSettings

_STDERR: Final = 2
_GRACE_S: Final = 5.0
"""After the agent's own limit. A process that hangs then ends even if the agent is gone."""


def serve(descriptor: int, model: Path | None, confined: Mapping[str, bool]) -> None:
    """Load the engine of the agent's first packet, then answer on the socket `descriptor` until it closes."""
    # With its default action the alarm ends a process even while native code holds the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as channel:
        try:
            # The agent has validated the settings; pydantic would cost 11 MB here.
            settings = cast("EngineSettings", SimpleNamespace(**receive(channel).head))
            with _quiet():
                engine = create_engine(settings, model)
        except AgentError as error:
            send(channel, Packet({"refused": str(error), "model": isinstance(error, ModelError)}))
            return
        send(channel, Packet({"ready": confined, "batch_size": engine.batch_size}))
        try:
            while True:
                send(channel, _answer(engine, channel, receive(channel)))
        except (EOFError, ConnectionError):
            return
        finally:
            engine.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the output to stderr: a native library that crashes writes a page, and the agent logs one line."""
    before, null = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDERR)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        os.close(null)


def _answer(engine: Engine, channel: socket.socket, question: Packet) -> Packet:
    signal.setitimer(signal.ITIMER_REAL, question.head["deadline_s"] / STARVED_WEIGHT + _GRACE_S)
    utterances = receive_utterances(channel, question)
    try:
        return Packet({"transcripts": [asdict(transcript) for transcript in engine.transcribe(utterances)]})
    except EngineError as error:
        return Packet({"error": str(error)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
