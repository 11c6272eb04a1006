"""Speech to text for others: a real agent, and the protocol's own client."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import Pcm16, clip, silence
from tests.support.mosquitto import free_port

pytestmark = pytest.mark.weights


@pytest.fixture
def port(tmp_path: Path, pulled: Callable[[str], Path]) -> Iterator[int]:
    """Where an agent with real weights listens for Assist, while it hears a quiet room itself."""
    port = free_port()
    room = write_wav(tmp_path / "room.wav", silence(600.0))
    agent = AgentProcess(
        tmp_path,
        {
            "source__kind": "wav",
            "source__path": room,
            "engine__model": pulled("tiny.en-q8_0"),
            "mqtt__enabled": False,
            "stdout__enabled": True,
            "assist__enabled": True,
            "assist__port": port,
        },
    )
    agent.await_log("assist: listening on", 60.0)
    with socket.create_connection(("127.0.0.1", port)):  # whoever stays connected and says nothing
        yield port
        agent.stop()
        assert agent.wait() == 0, agent.stderr
    assert "Traceback" not in agent.stderr


async def _ask(port: int, said: list[Eventable]) -> Event | None:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        for one in said:
            await client.write_event(one.event())
        return await asyncio.wait_for(client.read_event(), 60.0)


def ask(port: int, *said: Eventable) -> Event:
    """What is answered to all of that on a connection of its own."""
    answer = asyncio.run(_ask(port, list(said)))
    assert answer is not None, "it hung up"
    return answer


def words(port: int, pcm: Pcm16, chunk_bytes: int = 2_048) -> str:
    """Have `pcm` transcribed as Home Assistant would."""
    sound = pcm.tobytes()
    pieces = [AudioChunk(16_000, 2, 1, sound[at : at + chunk_bytes]) for at in range(0, len(sound), chunk_bytes)]
    answer = ask(port, Transcribe(language="en"), AudioStart(16_000, 2, 1), *pieces, AudioStop())
    return Transcript.from_event(answer).text


def test_words_for_speech_and_none_for_silence(port: int) -> None:
    """A sentence comes back, silence gives an empty text, nonsense hurts nobody, and the description is complete."""
    speech = np.concatenate([silence(0.5), clip("en_pls-hold-while-try"), silence(0.5)])
    assert "please hold while" in words(port, speech).lower()
    assert words(port, silence(3.0)) == ""
    _send_nonsense(port)
    (program,) = Info.from_event(ask(port, Describe())).asr
    assert program.installed
    assert program.models[0].languages == ["en"]
    assert "please hold while" in words(port, speech).lower()


def test_all_clients_are_served_beside_slow_ones(port: int) -> None:
    """Several at once, with chunks that split samples; as many clients that send a byte now and then disturb nobody."""
    speech = np.concatenate([silence(0.5), clip("en_pls-hold-while-try"), silence(0.5)])
    with ExitStack() as stack, ThreadPoolExecutor(5) as clients:
        for _ in range(20):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30.0))
            slow.sendall(b'{"type": "audio-start", ')
        heard = list(clients.map(lambda size: words(port, speech, size), (51, 161, 1_023, 8_191, 1_000_000)))
    assert len(set(heard)) == 1
    assert "please hold while" in heard[0].lower()


def _send_nonsense(port: int) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"{}\n", b'{"type": "x", "payload_length": 99999999999}\n'):
        with socket.create_connection(("127.0.0.1", port), timeout=30.0) as other:
            other.sendall(nonsense)
            assert other.recv(100) == b"", "nonsense was answered"


def listening_at(folder: Path, **where: Any) -> AgentProcess:
    """An agent that hears a second of silence, to its end."""
    settings: dict[str, Any] = {
        "source__kind": "wav",
        "source__path": write_wav(folder / "room.wav", silence(1.0)),
        "engine__kind": "scripted",
        "mqtt__enabled": False,
        "stdout__enabled": True,
        "assist__enabled": True,
    }
    return AgentProcess(folder, {**settings, **where})


def test_an_address_in_use_is_said_so(tmp_path: Path) -> None:
    """One line, exit 78."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = listening_at(tmp_path, assist__port=taken.getsockname()[1])
        assert agent.wait() == 78
    assert "set assist.host" in agent.stderr
    assert "Traceback" not in agent.stderr


def test_a_name_that_nobody_knows_yet_keeps_nothing_else_from_working(tmp_path: Path) -> None:
    """Said once, with what to do if it is wrong; the recording is listened to all the same."""
    agent = listening_at(tmp_path, assist__host="edgescribe.invalid", prometheus__enabled=True, prometheus__port=0)
    assert agent.wait() == 0, agent.stderr
    assert agent.stderr.count("assist.host = edgescribe.invalid: cannot listen at") == 1
    assert "if the name is wrong, set an address of this device" in agent.stderr
    assert "assist: listening" not in agent.stderr
    assert "prometheus: metrics at http://127.0.0.1:" in agent.stderr
