"""Inside the engine process: one engine, one parent, one question at a time.

Its only tie to the world is a socket (`pipe.py`). It says `ready` when the model is loaded, then answers every
question with transcripts or an error, until the parent closes. Whatever else ends it is the parent's to mend.
"""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from agent.asr import Engine, batch_size, transcribe_many
from agent.asr.factory import create_engine
from agent.asr.own_time import STARVED_WEIGHT
from agent.asr.pipe import Packet, receive, receive_utterances, send
from agent.asr.sandbox import Confinement
from agent.errors import AgentError, EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import EngineSettings

_STDERR: Final = 2
_GRACE_S: Final = 5.0
"""After the latest moment at which the parent would kill. So a process that hangs ends without its parent, too."""


def serve(descriptor: int, model: Path | None, confined: Confinement) -> None:
    """Load what the parent's first packet asks for, then answer on the socket `descriptor` until it closes."""
    # With its default action the alarm ends a process even where native code holds the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as channel:
        try:
            settings = receive(channel).head
            with _quiet():
                engine = _load(settings, model)
        except AgentError as error:
            send(channel, Packet({"refused": str(error), "model": isinstance(error, ModelError)}))
            return
        send(channel, Packet({"ready": asdict(confined), "batch_size": batch_size(engine)}))
        try:
            while True:
                send(channel, _answer(engine, channel, receive(channel)))
        except (EOFError, ConnectionError):
            return
        finally:
            engine.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what is written to stderr: a native library that crashes writes a page, and the parent one line."""
    before, nothing = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDERR)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        os.close(nothing)


def _load(settings: Mapping[str, Any], model: Path | None) -> Engine:
    # The parent has validated them, and pydantic would cost 11 MB here.
    return create_engine(cast("EngineSettings", SimpleNamespace(**settings)), model)


def _answer(engine: Engine, channel: socket.socket, question: Packet) -> Packet:
    signal.setitimer(signal.ITIMER_REAL, question.head["deadline_s"] / STARVED_WEIGHT + _GRACE_S)
    utterances = receive_utterances(channel, question)
    try:
        # One by itself is not a batch of one: an engine may do that in another way.
        several = len(utterances) > 1
        transcripts = transcribe_many(engine, utterances) if several else [engine.transcribe(utterances[0])]
        return Packet({"transcripts": [asdict(transcript) for transcript in transcripts]})
    except EngineError as error:
        return Packet({"error": str(error)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
