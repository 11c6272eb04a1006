"""How the agent and its engine process speak: packets of a JSON head and samples, over a stream socket.

4 bytes  length of the head, little-endian    4 bytes  length of the samples
the head, JSON in UTF-8                       the samples, int16 little-endian, 16 kHz

A question is an utterance, or a packet that says how many of them follow, all to be answered at once.
"""

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance

_LENGTHS: Final = struct.Struct("<II")
_SAMPLE_BYTES: Final = 2
MAX_HEAD_BYTES: Final = 1 << 20
"""Far more than 448 tokens can say. What is longer was not written by us: the other side runs native code on hostile
input, and is not believed."""
MAX_PCM_BYTES: Final = 60 * SAMPLE_RATE_HZ * _SAMPLE_BYTES
"""Twice Whisper's window."""
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


def pack_utterance(utterance: Utterance, deadline_s: float) -> Packet:
    """`utterance`, to be transcribed within `deadline_s` seconds."""
    head = {
        "id": utterance.id,
        "position": utterance.position,
        "started_ns": utterance.started_ns,
        "speech_end": utterance.speech_end,
        "closed_at": utterance.closed_at,
        "truncated": utterance.truncated,
        "speech_s": utterance.speech_s,
        "speech_prob": utterance.speech_prob,
        "lead_samples": utterance.lead_samples,
        "tail_samples": utterance.tail_samples,
    }
    return Packet({"utterance": head, "deadline_s": deadline_s}, np.ascontiguousarray(utterance.pcm).tobytes())


def unpack_utterance(packet: Packet) -> Utterance:
    """The utterance in a packet."""
    pcm: Pcm16 = np.frombuffer(packet.pcm, np.int16)
    return Utterance(pcm=pcm, **packet.head["utterance"])


def pack_batch(utterances: Sequence[Utterance], deadline_s: float) -> list[Packet]:
    """`utterances`, to be transcribed within `deadline_s` seconds, all together."""
    head = Packet({"batch": len(utterances), "deadline_s": deadline_s})
    return [head, *(pack_utterance(utterance, deadline_s) for utterance in utterances)]


def receive_utterances(channel: socket.socket, question: Packet) -> list[Utterance]:
    """The utterances of `question`, those that follow it on `channel` included; raises what `receive` does."""
    if "batch" not in question.head:
        return [unpack_utterance(question)]
    return [unpack_utterance(receive(channel)) for _ in range(question.head["batch"])]


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
