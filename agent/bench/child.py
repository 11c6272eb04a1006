"""The child process: one system, loaded once, that answers clip by clip.

It may run under an interpreter in which this package is not installed, see `process.py`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import usage
from agent.bench.adapters import Driver, Setup, create_driver
from agent.bench.lifeline import tied
from agent.bench.wire_format import BUSY_OPTION, Answer, Loaded, PeerMissing, pack, receive, receive_pcm, send
from agent.errors import AgentError

_WARM_UP_S = 2
_RIVAL = (sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass")
"""Its CPU time is nobody's; like all of the group it is stopped between clips."""


class _Child:
    def __init__(self, setup: Setup) -> None:
        started = time.monotonic()
        self._driver: Driver = create_driver(setup)
        self._driver.prepare("en")
        # Not silence: a peer with a filter of its own would then leave its engine cold.
        noise = np.random.default_rng(0).normal(0.0, 300.0, _WARM_UP_S * SAMPLE_RATE_HZ)
        self._driver.transcribe(noise.astype(np.int16))
        self._helpers = usage.descendants(os.getpid())
        self._rivals = [_rival() for _ in range(setup.number(BUSY_OPTION, 0))]
        self.loaded = Loaded(load_s=time.monotonic() - started)

    def transcribe(self, pcm: Pcm16, language: str) -> Answer:
        self._driver.prepare(language)
        cpu_s, wall_s = usage.own_cpu_s(self._helpers), time.perf_counter()
        heard = self._driver.transcribe(pcm)
        wall_s = time.perf_counter() - wall_s
        cpu_s = usage.own_cpu_s(self._helpers) - cpu_s
        everyone = usage.this_and(self._helpers)
        return Answer(
            text=heard.text,
            wall_s=wall_s,
            cpu_s=cpu_s,
            peak_rss_bytes=usage.peak_rss_bytes(everyone),
            pss_bytes=usage.pss_bytes(everyone),
            rejected=heard.rejected,
            doubtful=heard.doubtful,
            retries=heard.retries,
            audio_ctx=heard.audio_ctx,
            after_sound_s=heard.after_sound_s,
            pieces=heard.pieces,
        )

    def close(self) -> None:
        for rival in self._rivals:
            rival.kill()
            rival.communicate()
        self._driver.close()


def _rival() -> "subprocess.Popen[bytes]":
    """It is at work when this returns: stopped before it is tied to us, it would outlive us."""
    rival = subprocess.Popen(tied(_RIVAL), stdout=subprocess.PIPE)
    if rival.stdout:
        rival.stdout.readline()
    return rival


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until they end."""
    child: _Child | None = None
    while request := receive(requests):
        try:
            if request["op"] == "load":
                setup = Setup(
                    adapter=request["adapter"],
                    model=request["model"],
                    model_path=Path(request["model_path"]),
                    options=request["options"],
                    english_only=request["english_only"],
                )
                child = _Child(setup)
                send(answers, pack(child.loaded))
            elif child:
                pcm = receive_pcm(requests, request["samples"])
                send(answers, pack(child.transcribe(pcm, request["language"])))
        except (AgentError, RuntimeError, ValueError, OSError, MemoryError) as error:
            # Whatever a peer trips over is an answer of its own, and the run goes on with the others.
            kind = "" if isinstance(error, AgentError) else f"{type(error).__name__}: "
            missing = isinstance(error, PeerMissing)
            send(answers, {"failure": kind + " ".join(str(error).split()), "missing": missing})
    if child:
        child.close()


def main() -> None:
    """Serve on the standard streams; what libraries print goes to standard error."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(requests, answers)
