"""Packets between the agent and its engine process."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from agent.asr.pipe import (
    MAX_HEAD_BYTES,
    MAX_PCM_BYTES,
    Expired,
    Packet,
    pack,
    receive,
    receive_utterances,
    send,
)
from agent.audio.frames import Utterance


def within(limit_s: float) -> Expired:
    """Tells when so many seconds are over."""
    until_s = time.monotonic() + limit_s
    return lambda: time.monotonic() > until_s


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_an_utterance_arrives_as_it_was_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    """Every field and every sample, for an utterance of the greatest length, which fits in no socket's buffer."""
    ours, theirs = ends
    pcm = np.random.default_rng(0).integers(-32768, 32767, 29 * 16_000, np.int16)
    heard = Utterance("01PIPE", pcm, 7, 8, speech_end=9, closed_at=10, truncated=True, speech_s=1.5, speech_prob=0.75)
    sent = replace(heard, lead_samples=11, tail_samples=12)

    def ask() -> None:
        for packet in pack([sent], 3.5):
            send(ours, packet)

    sender = threading.Thread(target=ask)
    sender.start()
    question = receive(theirs, within(60.0))
    (received,) = receive_utterances(theirs, question)
    sender.join(60)
    assert question.head["deadline_s"] == 3.5
    assert np.array_equal(received.pcm, pcm)
    assert received == sent  # of all fields but the samples


def test_a_batch_arrives_whole_and_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    """More sound than one packet may hold, and each utterance with its own."""
    ours, theirs = ends
    sounds = [np.full(29 * 16_000, level, np.int16) for level in (1, 2, 3, 4)]
    sent = [Utterance(f"01PIPE{index}", pcm, 0, 0, speech_end=0, closed_at=0) for index, pcm in enumerate(sounds)]

    def ask() -> None:
        for packet in pack(sent, 7.5):
            send(ours, packet)

    sender = threading.Thread(target=ask)
    sender.start()
    question = receive(theirs, within(60.0))
    received = receive_utterances(theirs, question)
    sender.join(60)
    assert question.head["deadline_s"] == 7.5
    assert [utterance.id for utterance in received] == [utterance.id for utterance in sent]
    assert all(np.array_equal(one.pcm, other.pcm) for one, other in zip(received, sent, strict=True))


@pytest.mark.parametrize("lengths", [(MAX_HEAD_BYTES + 1, 0), (2, MAX_PCM_BYTES + 1), (2**32 - 1, 2**32 - 1)])
def test_impossible_lengths_are_not_believed(
    ends: tuple[socket.socket, socket.socket], lengths: tuple[int, int]
) -> None:
    """A process that was taken over cannot make the agent reserve gigabytes."""
    ours, theirs = ends
    theirs.sendall(struct.pack("<II", *lengths))
    with pytest.raises(ValueError, match="too long"):
        receive(ours, within(60.0))


@pytest.mark.parametrize("head", [b"[]", b"3", b"{", b"\xff\xff"])
def test_a_head_that_is_no_object_is_no_packet(ends: tuple[socket.socket, socket.socket], head: bytes) -> None:
    """One kind of error, whatever is wrong with it."""
    ours, theirs = ends
    theirs.sendall(struct.pack("<II", len(head), 0) + head)
    with pytest.raises(ValueError, match=r".+"):
        receive(ours, within(60.0))


def test_bytes_that_trickle_do_not_stretch_the_deadline(ends: tuple[socket.socket, socket.socket]) -> None:
    """The limit holds for the whole packet, not for each byte of it."""
    ours, theirs = ends
    done = threading.Event()

    def trickle() -> None:
        theirs.sendall(struct.pack("<II", 1_000, 0))
        while not done.wait(0.05):
            theirs.sendall(b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    with pytest.raises(TimeoutError):
        receive(ours, within(0.5))
    done.set()
    sender.join()


def test_a_reader_that_sleeps_holds_the_sender_up_no_longer_than_allowed(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """A stopped process takes no more bytes; that, too, has its limit."""
    ours, _ = ends
    with pytest.raises(TimeoutError):
        send(ours, Packet({}, bytes(MAX_PCM_BYTES)), within(0.3))


def test_the_end_of_the_other_side_is_told_from_silence(ends: tuple[socket.socket, socket.socket]) -> None:
    """In the middle of a packet as well as between two."""
    ours, theirs = ends
    theirs.sendall(b"\x04\x00")
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours, within(60.0))
