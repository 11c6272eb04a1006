"""The child process, driven with a peer package that misbehaves on demand."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.audio.frames import Pcm16
from agent.bench import process as process_module
from agent.bench.child import PeerError, PeerMissing
from agent.bench.process import SystemProcess
from agent.bench.systems import parse_system

PEER = """
import os, time

class Segment:
    def __init__(self, text):
        self.text = text

class WhisperModel:
    def __init__(self, path, **options):
        if path.endswith("broken"):
            raise RuntimeError("unable to\\nload")
        print("loading, chattily")

    def transcribe(self, audio, language, beam_size, vad_filter):
        level = float(abs(audio).max())
        if level > 0.9:
            os.abort()
        if level > 0.7:
            raise ValueError("cannot do this one")
        if level > 0.5:
            time.sleep(60)
        os.write(1, b"noise on standard output\\n")
        spin_until = time.process_time() + 0.2
        while time.process_time() < spin_until:
            pass
        return iter([Segment(f" {language}"), Segment(f" {beam_size} {len(audio)}")]), None
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemProcess]:
    """A running system that is the package above."""
    (tmp_path / "faster_whisper.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = SystemProcess(replace(parse_system("stock-faster-whisper:any:beam=3"), path=str(tmp_path)))
    yield process
    process.close()


def sound(level: float, samples: int = 8_000) -> Pcm16:
    """A clip that makes the peer above do something."""
    return np.full(samples, int(level * 32_767), dtype=np.int16)


def test_an_answer_has_words_and_costs(peer: SystemProcess) -> None:
    """Text, seconds and bytes are those of the peer, whatever it prints."""
    answer = peer.transcribe(sound(0.1), "de")
    assert answer.text == "de 3 8000"
    assert 0.2 <= answer.cpu_s < 10.0
    assert answer.wall_s >= 0.2
    assert answer.peak_rss_bytes >= answer.pss_bytes > 5_000_000


def test_between_clips_it_cannot_use_the_cpu(peer: SystemProcess) -> None:
    """The whole group is stopped, so idle threads cost the next system nothing."""
    peer.transcribe(sound(0.1), "en")
    deadline = time.monotonic() + 60.0
    while psutil.Process(peer.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert psutil.Process(peer.pid).status() == psutil.STATUS_STOPPED


def test_a_failure_is_an_answer(peer: SystemProcess) -> None:
    """A clip that the peer cannot do is told in one line, and the next one works."""
    with pytest.raises(PeerError, match="ValueError: cannot do this one"):
        peer.transcribe(sound(0.8), "en")
    assert peer.alive
    assert peer.transcribe(sound(0.1), "en").text


def test_a_crash_is_told(peer: SystemProcess) -> None:
    """Native code that aborts takes its own process down and no other."""
    with pytest.raises(PeerError, match="killed by signal 6"):
        peer.transcribe(sound(1.0), "en")
    assert not peer.alive


def test_a_hang_is_ended(peer: SystemProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than its limit is killed."""
    monkeypatch.setattr(process_module, "CLIP_LIMIT_S", 0.5)
    monkeypatch.setattr(process_module, "CLIP_LIMIT_RTF", 0.0)
    with pytest.raises(PeerError, match="no answer within"):
        peer.transcribe(sound(0.6), "en")
    assert not peer.alive


def test_closing_leaves_nothing_behind(peer: SystemProcess) -> None:
    """The process is gone, also from the table of processes; closing twice does no harm."""
    peer.close()
    peer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


@pytest.mark.usefixtures("peer")
def test_a_model_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    """Line breaks of a library's message are gone."""
    with pytest.raises(PeerError, match="RuntimeError: unable to load"):
        SystemProcess(replace(parse_system("stock-faster-whisper:broken"), path=str(tmp_path / "broken")))


def test_a_peer_that_is_not_there_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its absence is no failure of the run: the message says what to install."""
    (tmp_path / "faster_whisper.py").write_text("import a_package_that_nobody_has")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(PeerMissing, match=r"a_package_that_nobody_has is missing.* install .*\[peers\]"):
        SystemProcess(replace(parse_system("stock-faster-whisper:any"), path=str(tmp_path)))


STARTER = """
import sys, time
from dataclasses import replace
from agent.bench.process import SystemProcess
from agent.bench.systems import parse_system
process = SystemProcess(replace(parse_system("stock-faster-whisper:any:busy=1"), path=sys.argv[1]))
print(process.pid, flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped as it is, it goes with a parent that was killed, and so does its rival."""
    (tmp_path / "faster_whisper.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(process_module.__file__).parents[2])]))
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        child = psutil.Process(int(starter.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        starter.kill()
    try:
        assert len(family) == 2
        assert not psutil.wait_procs(family, timeout=60.0)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_who_is_interrupted_waits_for_no_answer(peer: SystemProcess) -> None:
    """Ctrl-C in the midst of a clip that would take a minute ends its process there and then."""
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            peer.transcribe(sound(0.6), "en")
    finally:
        signal.signal(signal.SIGALRM, handler)
    peer.close()
    assert time.monotonic() - began_s < 50.0


def test_rivals_compete_and_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the cores while a clip is transcribed, cost the system nothing in the books, and end with it."""
    (tmp_path / "faster_whisper.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = SystemProcess(replace(parse_system("stock-faster-whisper:any:busy=2"), path=str(tmp_path)))
    rivals = psutil.Process(process.pid).children(recursive=True)
    try:
        answer = process.transcribe(sound(0.1), "en")
        assert len(rivals) == 2
        assert all(sum(rival.cpu_times()[:2]) > 0.02 for rival in rivals)
        assert answer.cpu_s < 0.5
    finally:
        process.close()
    assert not any(rival.is_running() for rival in rivals)


WYOMING = """
import socket, sys
from wyoming.asr import Transcript
from wyoming.event import read_event, write_event

port = int(sys.argv[sys.argv.index("--uri") + 1].rpartition(":")[2])
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as stream:
            samples = 0
            while event := read_event(stream):
                if event.type == "transcribe":
                    language = event.data["language"]
                samples += len(event.payload or b"") // 2
                if event.type == "audio-stop":
                    write_event(Transcript(text=f" {language} {samples} ").event(), stream)
"""


def test_a_server_gets_all_of_the_sound_and_is_timed_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each clip has a connection of its own; the server ends with the process."""
    package = tmp_path / "wyoming_faster_whisper"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(WYOMING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = SystemProcess(replace(parse_system("wyoming-faster-whisper:any"), path=str(tmp_path)))
    helpers = psutil.Process(process.pid).children(recursive=True)
    answers = [process.transcribe(sound(0.1, samples), "de") for samples in (5_000, 8_000)]
    process.close()
    assert [answer.text for answer in answers] == ["de 5000", "de 8000"]
    assert all(0 < answer.after_sound_s <= answer.wall_s for answer in answers)
    assert helpers
    assert not any(helper.is_running() for helper in helpers)
