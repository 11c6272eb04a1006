"""Downloads over a real socket: whole, resumed, refused."""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models.catalogue import HubFile
from agent.models.download import HubUnreachable, Progress, fetch
from tests.model_server import Hub, HubServer
from tests.unit.models.conftest import Silent

CONTENT = bytes(range(256)) * 4_000


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A server that has one file."""
    with HubServer() as server:
        server.files["/a/model.bin"] = CONTENT
        yield server


FILE = HubFile(name="model.bin", size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


def fetch_model(hub: Hub, folder: Path, progress: Progress | None = None) -> None:
    """Fetch the file of the server."""
    fetch(f"{hub.url}/a/model.bin", FILE, folder / "model.bin", progress or Silent())


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Keep the bytes."""
        assert (label, total_bytes) == ("model.bin", len(CONTENT))
        self.done.append(done_bytes)


def test_a_file_arrives_whole(hub: Hub, tmp_path: Path) -> None:
    """Content, progress up to the last byte, and no partial file left."""
    progress = Recorder()
    fetch_model(hub, tmp_path, progress)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert progress.done == sorted(progress.done)
    assert progress.done[-1] == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_cut_connection_is_continued_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    """Twice cut, twice continued with a range request; nothing is fetched twice."""
    hub.cut_after_bytes = [300_000, 200_000]
    fetch_model(hub, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert [asked for _, asked in hub.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_pull_continues_an_earlier_one(hub: Hub, tmp_path: Path) -> None:
    """What a killed process left in the partial file is not fetched again."""
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:700_000])
    fetch_model(hub, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert hub.requests == [("/a/model.bin", "bytes=700000-")]


def test_a_server_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    """An answer with the whole file is not appended to the part."""
    hub.ignores_ranges = True
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:1_000])
    fetch_model(hub, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 500, CONTENT + b"too much"], ids=["other", "longer"])
def test_rubbish_in_the_partial_file_is_not_accepted(hub: Hub, tmp_path: Path, left: bytes) -> None:
    """A part of something else fails the digest and is deleted, so that the next attempt succeeds."""
    part = tmp_path / "model.bin.part"
    part.write_bytes(left)
    try:
        fetch_model(hub, tmp_path)
    except ModelError:
        assert not part.exists()
        fetch_model(hub, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    """One flipped bit: the message has both digests' beginnings, and no file stays."""
    flipped = bytearray(CONTENT)
    flipped[12_345] ^= 1
    hub.files["/a/model.bin"] = bytes(flipped)
    with pytest.raises(ModelError, match=hashlib.sha256(flipped).hexdigest()[:12]) as caught:
        fetch_model(hub, tmp_path)
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_refused_without_reading_it_all(hub: Hub, tmp_path: Path) -> None:
    """A server cannot fill the disk."""
    hub.files["/a/model.bin"] = CONTENT * 3
    with pytest.raises(ModelError, match="longer than"):
        fetch_model(hub, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_cuts_is_given_up(hub: Hub, tmp_path: Path) -> None:
    """After a few attempts it counts as unreachable; the part stays for another day."""
    hub.cut_after_bytes = [10] * 50
    with pytest.raises(HubUnreachable, match="ended after"):
        fetch_model(hub, tmp_path)
    assert (tmp_path / "model.bin.part").stat().st_size == 40
    assert not (tmp_path / "model.bin").exists()


def test_a_missing_file_is_said_with_the_servers_answer(hub: Hub, tmp_path: Path) -> None:
    """404 is not tried again."""
    with pytest.raises(HubUnreachable, match="404"):
        fetch(f"{hub.url}/b", FILE, tmp_path / "model.bin", Silent())
    assert len(hub.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://nowhere.invalid/x"])
def test_nobody_there_is_found_out_quickly(tmp_path: Path, url: str) -> None:
    """A refused connection and an unknown host take seconds, not minutes."""
    started_s = time.monotonic()
    with pytest.raises(HubUnreachable):
        fetch(url, FILE, tmp_path / "x", Silent())
    assert time.monotonic() - started_s < 120


def test_a_silent_address_is_found_out_quickly(tmp_path: Path) -> None:
    """Behind a firewall that drops packets (here: a listener whose queue is full) the probe ends by itself."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        held = [socket.socket() for _ in range(4)]
        for connection in held:
            connection.setblocking(False)
            connection.connect_ex(address)
        started_s = time.monotonic()
        with pytest.raises(HubUnreachable, match="does not answer"):
            fetch(f"http://127.0.0.1:{address[1]}/x", FILE, tmp_path / "x", Silent())
        assert time.monotonic() - started_s < 120
        for connection in held:
            connection.close()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "huggingface.co"])
def test_only_http_is_fetched(tmp_path: Path, url: str) -> None:
    """A hub address of another kind is refused with the setting's name."""
    with pytest.raises(ModelError, match=r"models\.hub_url"):
        fetch(url, FILE, tmp_path / "x", Silent())


def test_a_full_disk_is_said(hub: Hub, tmp_path: Path) -> None:
    """/dev/full takes nothing: the message names the file and the reason, and nothing is tried again."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - a device, not a path of ours
        pytest.fail("this test needs /dev/full, which every Linux has")
    (tmp_path / "model.bin.part").symlink_to("/dev/full")
    with pytest.raises(ModelError, match="No space left"):
        fetch_model(hub, tmp_path)
    assert len(hub.requests) == 1
