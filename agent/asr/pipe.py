"""Packets between the agent and its engine process, over a stream socket: a JSON head and samples.

4 bytes  length of the head, little-endian    4 bytes  length of the samples
the head, JSON in UTF-8                       the samples, int16 little-endian, 16 kHz

A question is a packet with the number of utterances that follow, one a packet. One packet answers all of them.
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
MAX_HEAD_BYTES: Final = 1 << 20
"""Far more than 448 tokens of text. The engine process runs native code on hostile input: do not trust its lengths."""
MAX_PCM_BYTES: Final = 60 * SAMPLE_RATE_HZ * 2
"""Twice Whisper's window."""
_FIELDS: Final = tuple(field.name for field in fields(Utterance) if field.name != "pcm")
POLL_S: Final = 0.5
"""How often a waiting side calls `expired`."""

Expired = Callable[[], bool]
"""Returns True when the time for a packet is over."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One message."""

    head: Mapping[str, Any]
    """A JSON object."""
    pcm: bytes = b""
    """int16 samples in the machine's order: both sides are on the same machine."""


def send(channel: socket.socket, packet: Packet, expired: Expired | None = None) -> None:
    """Send a packet; without `expired`, without a limit in time.

    Raises:
        TimeoutError: the other side did not take all of it in time.
        OSError: the other side is gone.
    """
    head = json.dumps(packet.head).encode()
    data = _LENGTHS.pack(len(head), len(packet.pcm)) + head + packet.pcm
    _move(channel, channel.send, memoryview(data), expired)


def receive(channel: socket.socket, expired: Expired | None = None) -> Packet:
    """Wait for the next packet; without `expired`, without a limit in time.

    Raises:
        TimeoutError: the packet did not arrive completely in time.
        EOFError: the other side has closed.
        ValueError: the bytes are no packet.
        OSError: the other side is gone.
    """
    lengths = bytearray(_LENGTHS.size)
    _move(channel, channel.recv_into, memoryview(lengths), expired)
    head_bytes, pcm_bytes = _LENGTHS.unpack(lengths)
    if head_bytes > MAX_HEAD_BYTES or pcm_bytes > MAX_PCM_BYTES:
        raise ValueError(f"a packet of {head_bytes} and {pcm_bytes} bytes is too long")
    data = bytearray(head_bytes + pcm_bytes)
    _move(channel, channel.recv_into, memoryview(data), expired)
    head = json.loads(data[:head_bytes])
    if not isinstance(head, dict):
        raise ValueError("the head of a packet must be a JSON object")  # noqa: TRY004 - one kind of error for bad packets
    return Packet(head, bytes(data[head_bytes:]))


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


def pack(utterances: Sequence[Utterance], deadline_s: float) -> list[Packet]:
    """Return the question for the words of `utterances`; the time limit is for all of them together."""
    question = [Packet({"utterances": len(utterances), "deadline_s": deadline_s})]
    for utterance in utterances:
        head = {name: getattr(utterance, name) for name in _FIELDS}
        question.append(Packet(head, np.ascontiguousarray(utterance.pcm).tobytes()))
    return question


def receive_utterances(channel: socket.socket, question: Packet) -> list[Utterance]:
    """Return the utterances that follow `question` on `channel`; raises the errors of `receive`."""
    packets = [receive(channel) for _ in range(question.head["utterances"])]
    return [Utterance(pcm=np.frombuffer(packet.pcm, np.int16), **packet.head) for packet in packets]
