"""How the agent and its engine process speak: packets of a JSON head and samples, over a stream socket.

4 bytes  length of the head, little-endian    4 bytes  length of the samples
the head, JSON in UTF-8                       the samples, int16 little-endian, 16 kHz

A question is a packet that says how many utterances follow, all to be answered at once.
"""

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Utterance

_LENGTHS: Final = struct.Struct("<II")
_SAMPLE_BYTES: Final = 2
MAX_HEAD_BYTES: Final = 1 << 20
"""Far more than 448 tokens can say. What is longer was not written by us: the other side runs native code on hostile
input, and is not believed."""
MAX_PCM_BYTES: Final = 60 * SAMPLE_RATE_HZ * _SAMPLE_BYTES
"""Twice Whisper's window."""
_FIELDS: Final = tuple(field.name for field in fields(Utterance) if field.name != "pcm")
POLL_S: Final = 0.5
"""How often a side that waits asks whether its time is over."""

Expired = Callable[[], bool]
"""Tells whether the time for a packet is over."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One message."""

    head: Mapping[str, Any]
    """A JSON object."""
    pcm: bytes = b""
    """int16 samples in the machine's order, as both sides are the same machine."""


def send(channel: socket.socket, packet: Packet, expired: Expired | None = None) -> None:
    """Send a packet; without `expired`, wait for as long as it takes.

    Raises:
        TimeoutError: the other side did not take all of it in time.
        OSError: the other side is gone.
    """
    head = json.dumps(packet.head).encode()
    data = _LENGTHS.pack(len(head), len(packet.pcm)) + head + packet.pcm
    _move(channel, channel.send, memoryview(data), expired)


def receive(channel: socket.socket, expired: Expired | None = None) -> Packet:
    """Wait for the next packet; without `expired`, for as long as it takes.

    Raises:
        TimeoutError: it did not come, or not all of it, in time.
        EOFError: the other side has closed.
        ValueError: what came is no packet.
        OSError: the other side is gone.
    """
    head_bytes, pcm_bytes = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, expired))
    if head_bytes > MAX_HEAD_BYTES or pcm_bytes > MAX_PCM_BYTES:
        raise ValueError(f"a packet of {head_bytes} and {pcm_bytes} bytes is longer than any of ours")
    head = json.loads(_exactly(channel, head_bytes, expired))
    if not isinstance(head, dict):
        raise ValueError("the head of a packet is no object")  # noqa: TRY004 - one kind of error for what is no packet
    return Packet(head, bytes(_exactly(channel, pcm_bytes, expired)))


def pack(utterances: Sequence[Utterance], deadline_s: float) -> list[Packet]:
    """Return the question for the words of `utterances`, to be answered within `deadline_s` seconds, all together."""
    question = [Packet({"utterances": len(utterances), "deadline_s": deadline_s})]
    for utterance in utterances:
        head = {name: getattr(utterance, name) for name in _FIELDS}
        question.append(Packet(head, np.ascontiguousarray(utterance.pcm).tobytes()))
    return question


def receive_utterances(channel: socket.socket, question: Packet) -> list[Utterance]:
    """Return the utterances that follow `question` on `channel`; raises what `receive` does."""
    packets = [receive(channel) for _ in range(question.head["utterances"])]
    return [Utterance(pcm=np.frombuffer(packet.pcm, np.int16), **packet.head) for packet in packets]


def _exactly(channel: socket.socket, length: int, expired: Expired | None) -> bytearray:
    data = bytearray(length)
    _move(channel, channel.recv_into, memoryview(data), expired)
    return data


def _move(channel: socket.socket, move: Callable[[memoryview], int], rest: memoryview, expired: Expired | None) -> None:
    """Call `move` until all of `rest` has gone through `channel`."""
    channel.settimeout(POLL_S if expired else None)
    while rest:
        with suppress(TimeoutError):
            moved = move(rest)
            if not moved:
                raise EOFError("the other side has closed")
            rest = rest[moved:]
        if rest and expired and expired():
            raise TimeoutError
