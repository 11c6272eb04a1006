"""Trace one utterance through the agent, and count the functions on its way.

    python benchmarks/hops.py            # a virtual microphone by ALSA, or a recording in real time without libasound
    python benchmarks/hops.py --json

The script runs `edgescribe run` in this process, with the scripted engine, a real mosquitto and the default settings
otherwise. It says one sentence into the microphone, waits for the transcript and its PUBACK, and stops the agent.

A hop is a distinct function of the package `agent` that handles the utterance. A function handles it if one of these
carries it: an argument (also `self`), a local variable at the end of a call, a return value, a yielded value. A value
carries the utterance in one of two forms:

- samples: it holds 32 chosen samples from the middle of the sentence, as int16 or float32. That is one chunk of the
  sound card, one frame, a buffer with that frame, or the utterance.
- text: it holds the text that the engine returns for it, in a string or in bytes. That is a transcript, a payload, a
  stored message or a packet.

The search goes into tuples, lists, dicts, data classes and pydantic models, four levels deep. It does not go into other
objects, so a stage does not carry the sound in its buffers. A value that also holds the second configured text is the
configuration, and carries no text.

Some hops call another hop while they handle the utterance: they pass it on. The others are the ends of calls, such as a
queue, a device or a measurement. The script prints both numbers.

These do not count: functions outside `agent`, generated methods, comprehensions, the process of the engine, and
housekeeping, which means modules or functions with a name of logging, metrics, telemetry, a monitor or a watchdog. The
script lists housekeeping apart. Names of functions and modules have no other effect.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import numpy as np

REPOSITORY: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from agent import __file__ as _init  # noqa: E402 - the package lies beside this folder
from agent.cli import main as edgescribe  # noqa: E402
from tests.support.agent_process import options, write_wav  # noqa: E402
from tests.support.clips import clip, silence  # noqa: E402
from tests.support.mosquitto import Mosquitto  # noqa: E402
from tests.support.receiver import Receiver, eventually  # noqa: E402
from tests.support.virtual_microphone import VirtualMicrophone  # noqa: E402

PACKAGE: Final = str(Path(_init).parent) + os.sep
TEXT: Final = "the marker of this utterance"
DECOY: Final = "a text that is never heard"
SENTENCE: Final = "en_conf-waitforleader"
MARK_SAMPLES: Final = 32
DEPTH: Final = 4
LONGEST: Final = 64
"""Longer lists and dicts are looked at so far."""
HOUSEKEEPING: Final = re.compile(
    r"(^|[._])(log|logging|metrics?|telemetry|vitals|monitor\w*|\w*_monitor|watchdog|alive)([._]|$)", re.IGNORECASE
)
PUBACK_S: Final = 1.5
LIMIT_S: Final = 60.0


def marks(pcm: np.ndarray[Any, Any]) -> list[bytes]:
    """Samples from the loudest moment, as int16 and as float32; twice, as one may lie across the end of a chunk."""
    loudest = int(np.abs(pcm[8_000:-8_000].astype(np.int32)).argmax()) + 8_000
    pieces = [pcm[first : first + MARK_SAMPLES] for first in (loudest, loudest + 2 * MARK_SAMPLES)]
    return [
        form
        for piece in pieces
        for form in (piece.tobytes(), (piece / np.float32(32_768)).astype(np.float32).tobytes())
    ]


@dataclasses.dataclass(slots=True)
class Hop:
    """A function that handles the utterance."""

    order: int
    """When the utterance reached it, among all calls and returns."""
    thread: str
    module: str
    function: str
    forms: set[str] = dataclasses.field(default_factory=set)
    """`samples`, `text`."""

    @property
    def housekeeping(self) -> bool:
        """Whether it is not on the way, but beside it."""
        return bool(HOUSEKEEPING.search(self.module) or HOUSEKEEPING.search(self.function))


def is_of_the_agent(code: CodeType) -> bool:
    """Whether it is a function of the package, and no comprehension or class body."""
    return code.co_filename.startswith(PACKAGE) and (code.co_name[0] != "<" or code.co_name == "<lambda>")


class Tracer:
    """Looks at every call of a function of the agent; to be used as a profile function of every thread."""

    def __init__(self, samples: list[bytes]) -> None:
        self.hops: dict[CodeType, Hop] = {}
        self.called: set[CodeType] = set()
        """All functions of the agent that were called."""
        self.callers: set[CodeType] = set()
        """Functions that called a hop while it handled the utterance."""
        self.over = False
        self._samples = samples
        self._count = 0

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        """Called by the interpreter."""
        code = frame.f_code
        if self.over or event not in {"call", "return"} or not is_of_the_agent(code):
            return
        self._count += 1
        values = list(frame.f_locals.values())
        if event == "call":
            self.called.add(code)
        else:
            values.append(value)
        if forms := self._forms_of(values):
            self._note(frame, forms)

    def _note(self, frame: FrameType, forms: set[str]) -> None:
        code = frame.f_code
        if code not in self.hops:
            module = frame.f_globals.get("__name__", "?")
            self.hops[code] = Hop(self._count, threading.current_thread().name, module, code.co_qualname)
        self.hops[code].forms |= forms
        caller = frame.f_back
        while caller and not is_of_the_agent(caller.f_code):
            caller = caller.f_back
        if caller:
            self.callers.add(caller.f_code)

    def _forms_of(self, values: list[Any]) -> set[str]:
        forms: set[str] = set()
        for value in values:
            texts: set[str] = set()
            found = {form for form in self._search(value, DEPTH, texts) if form}
            forms |= found
            if TEXT in texts and DECOY not in texts:
                forms.add("text")
        return forms

    def _search(self, value: Any, depth: int, texts: set[str]) -> Iterator[str]:
        if isinstance(value, str):
            texts |= {known for known in (TEXT, DECOY) if known in value}
        elif isinstance(value, bytes | bytearray | memoryview | ctypes.Array):
            data = bytes(value)
            texts |= {known for known in (TEXT, DECOY) if known.encode() in data}
            yield from self._samples_in(data)
        elif isinstance(value, np.ndarray):
            if value.dtype in (np.int16, np.float32):
                yield from self._samples_in(value.tobytes())
        elif depth:
            for inner in inside(value):
                yield from self._search(inner, depth - 1, texts)

    def _samples_in(self, data: bytes) -> Iterator[str]:
        if any(mark in data for mark in self._samples):
            yield "samples"


def inside(value: Any) -> list[Any]:
    """Return the content of a container or a value object; an empty list for other objects."""
    if isinstance(value, tuple | list):
        return list(value[:LONGEST])
    if isinstance(value, dict):
        return list(value.values())[:LONGEST]
    if isinstance(value, type):
        return []
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return list(vars(value).values())
    return []


def say(microphone: VirtualMicrophone, receiver: Receiver, tracer: Tracer) -> None:
    """Say the sentence once the agent is there; end the agent when the transcript has arrived and was acknowledged."""
    try:
        eventually(lambda: "online" in receiver.payloads("status"), LIMIT_S)
        microphone.play(np.concatenate([silence(1.5), clip(SENTENCE)]))
        deadline_s = time.monotonic() + LIMIT_S
        while not receiver.of("transcript") and time.monotonic() < deadline_s:
            microphone.play(silence(0.2))
        microphone.play(silence(PUBACK_S))
    finally:
        tracer.over = True
        os.kill(os.getpid(), signal.SIGTERM)


def watch(receiver: Receiver, tracer: Tracer) -> None:
    """As `say`, where the recording plays itself."""
    try:
        eventually(lambda: bool(receiver.of("transcript")), LIMIT_S)
        time.sleep(PUBACK_S)
    finally:
        tracer.over = True
        os.kill(os.getpid(), signal.SIGTERM)


def has_alsa() -> bool:
    """Whether libasound is here; the plug-in of the virtual microphone is part of it."""
    try:
        ctypes.CDLL("libasound.so.2")
    except OSError:
        return False
    return Path("/usr/share/alsa/alsa.conf").exists()


def trace(folder: Path, tracer: Tracer, *, recording: bool) -> int:
    """Run the agent until the utterance is delivered; its exit status."""
    broker = Mosquitto(folder, "allow_anonymous true")
    broker.start()
    settings: dict[str, object] = {
        "device__id": "hops",
        "state_dir": folder / "state",
        "engine__kind": "scripted",
        "engine__texts": [TEXT, DECOY],
        "mqtt__host": "127.0.0.1",
        "mqtt__port": broker.port,
    }
    try:
        with Receiver(broker.port) as receiver:
            if recording:
                pcm = np.concatenate([silence(1.5), clip(SENTENCE), silence(LIMIT_S)])
                path = write_wav(folder / "sentence.wav", pcm)
                settings |= {"source__kind": "wav", "source__path": path, "source__pace": "realtime"}
                player = threading.Thread(target=watch, args=(receiver, tracer))
            else:
                microphone = VirtualMicrophone(folder)
                os.environ.update(microphone.environment)
                settings |= {"source__kind": "alsa", "source__device": microphone.device}
                player = threading.Thread(target=say, args=(microphone, receiver, tracer))
            player.start()
            threading.setprofile(tracer)
            sys.setprofile(tracer)
            try:
                return edgescribe(["run", *options(settings)])
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
                player.join()
                if not receiver.of("transcript"):
                    sys.exit("hops: no transcript arrived")
    finally:
        broker.kill()


def main() -> int:
    """Print the hops in order, and how many there are."""
    parser = argparse.ArgumentParser(description="Count the functions on the way of one utterance.")
    parser.add_argument("--recording", action="store_true", help="a recording in real time, even where ALSA is")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        del os.environ[name]
    os.environ["EDGESCRIBE_CONFIG"] = os.devnull
    tracer = Tracer(marks(clip(SENTENCE)))
    recording = args.recording or not has_alsa()
    with tempfile.TemporaryDirectory() as folder:
        status = trace(Path(folder), tracer, recording=recording)
    hops = sorted(tracer.hops.values(), key=lambda hop: hop.order)
    on_the_way = [hop for hop in hops if not hop.housekeeping]
    beside = [hop for hop in hops if hop.housekeeping]
    threads = Counter(hop.thread for hop in on_the_way)
    if args.json:
        fields = ("thread", "module", "function")
        shown = [{**{key: getattr(hop, key) for key in fields}, "carries": sorted(hop.forms)} for hop in on_the_way]
        print(json.dumps({"source": "wav" if recording else "alsa", "total": len(on_the_way), "hops": shown}, indent=2))
        return status
    print(f"from {'a recording' if recording else 'ALSA'} to the PUBACK of the transcript:\n")
    for number, hop in enumerate(on_the_way, start=1):
        forms = ", ".join(sorted(hop.forms))
        print(f"{number:4}  {hop.thread:16.16}  {hop.module:34}  {hop.function:48}  {forms}")
    modules = {hop.module for hop in on_the_way}
    print(f"\nhops: {len(on_the_way)} functions in {len(threads)} threads and {len(modules)} modules")
    passing = sum(code in tracer.callers and not hop.housekeeping for code, hop in tracer.hops.items())
    print(f"of these, {passing} pass it on to another hop, and {len(on_the_way) - passing} are the last of a call")
    print(f"by thread: {', '.join(f'{name} {count}' for name, count in threads.items())}")
    print(f"with the samples: {sum('samples' in hop.forms for hop in on_the_way)}, ", end="")
    print(f"with the text: {sum('text' in hop.forms for hop in on_the_way)}")
    print(f"housekeeping that saw it: {len(beside)}: {', '.join(f'{hop.module}.{hop.function}' for hop in beside)}")
    print(f"functions of the agent that were called at all: {len(tracer.called)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
