import itertools
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.terminal.local_socket import (
    SERVICE,
    VIEWERS,
    SnapshotServer,
    connect,
    likely_paths,
    listen,
    own_path,
    snapshots,
)
from agent.worker import Worker
from tests.starved import no_descriptors
from tests.support.receiver import eventually


def never(worker: Worker) -> None:
    """The thread must not fail."""
    raise AssertionError(worker.failure)


@dataclass
class Agent:
    """What stands behind a server: lines that count up, and who was told that somebody looks."""

    path: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)
    made: int = 0
    watched: list[bool] = field(default_factory=list)
    padding: int = 0

    def line(self) -> bytes:
        """The next line."""
        self.made += 1
        return b"%d%s\n" % (next(self.numbers), b" " * self.padding)

    def serve(self) -> SnapshotServer:
        """Begin."""
        return SnapshotServer(self.path, self.line, self.watched.append, never)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """One that does not serve yet."""
    return Agent(tmp_path / "top.sock")


def test_who_connects_is_told_until_it_goes(agent: Agent) -> None:
    """Line after line, in order; the meters run for just as long."""
    with closing(agent.serve()):
        with closing(snapshots([agent.path])) as feed:
            assert [int(next(feed)) for _ in range(3)] == [0, 1, 2]
            assert agent.watched == [True]
        assert eventually(lambda: agent.watched == [True, False])


def test_nothing_is_measured_while_nobody_looks(agent: Agent) -> None:
    """No line is made before somebody connects, and none after it has gone."""
    with closing(agent.serve()):
        assert agent.made == 0
        with closing(snapshots([agent.path])) as feed:
            next(feed)
        assert eventually(lambda: agent.watched == [True, False])
        made = agent.made
        assert not eventually(lambda: agent.made > made, 1.0)


def test_viewers_share_the_lines(agent: Agent) -> None:
    """Two see the same numbers, and the first to leave ends nothing for the other."""
    with closing(agent.serve()), closing(snapshots([agent.path])) as one:
        next(one)
        with closing(snapshots([agent.path])) as other:
            seen = int(next(other))
        assert seen in [int(next(one)) for _ in range(seen + 2)]
        assert agent.watched == [True]


def test_there_is_room_for_a_few(agent: Agent) -> None:
    """Whoever comes when they are too many is hung up on, and is told why."""
    with closing(agent.serve()):
        feeds = [snapshots([agent.path]) for _ in range(VIEWERS)]
        for feed in feeds:
            next(feed)
        with closing(snapshots([agent.path])) as late, pytest.raises(AgentError, match="4 others look"):
            next(late)
        for feed in feeds:
            with closing(feed):
                next(feed)


def test_who_does_not_read_is_hung_up_on(agent: Agent) -> None:
    """The agent never waits for a viewer: a full socket ends it, and others go on."""
    agent.padding = 20_000
    with closing(agent.serve()), connect(agent.path):
        assert eventually(lambda: agent.watched == [True, False], 60.0)
        with closing(snapshots([agent.path])) as reader:
            next(reader)


def test_its_end_is_the_end_of_all(agent: Agent) -> None:
    """No thread, no socket, no name is left; closing twice is as good as once."""
    server = agent.serve()
    with closing(snapshots([agent.path])) as feed:
        next(feed)
        assert server.close()
        with pytest.raises(AgentError, match="has ended"):
            _read_to_the_end(feed)
    assert server.close()
    assert "top" not in {thread.name for thread in threading.enumerate()}
    assert not agent.path.exists()


def _read_to_the_end(feed: Iterator[bytes]) -> None:
    for _ in feed:
        pass


def test_where_nobody_listens_is_said_in_one_line(tmp_path: Path) -> None:
    """Which places were tried, and what to do."""
    with pytest.raises(AgentError, match=r"no agent answers at .*one nor at .*two: is it running"):
        snapshots([tmp_path / "one", tmp_path / "two"])


def test_a_service_listens_in_its_runtime_folder(tmp_path: Path) -> None:
    """The one that systemd made for it; others listen in their state folder, so that two do not meet."""
    assert own_path(tmp_path, {"RUNTIME_DIRECTORY": "/run/edgescribe:/run/other"}) == Path("/run/edgescribe/top.sock")
    assert own_path(tmp_path, {"XDG_RUNTIME_DIR": "/run/user/1000"}) == tmp_path / "top.sock"


def test_who_looks_finds_its_own_agent_first_and_the_service_next(tmp_path: Path) -> None:
    """Each place once."""
    assert likely_paths(tmp_path, {}) == (tmp_path / "top.sock", SERVICE / "top.sock")
    assert likely_paths(tmp_path, {"RUNTIME_DIRECTORY": str(SERVICE)}) == (SERVICE / "top.sock",)


def test_nobody_else_may_connect(tmp_path: Path) -> None:
    """Read and write for the user alone, whatever the umask."""
    with listen(tmp_path / "top.sock"):
        mode = (tmp_path / "top.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """After a crash the name is still there, and nobody listens."""
    listen(tmp_path / "top.sock").close()
    with listen(tmp_path / "top.sock") as listener, connect(tmp_path / "top.sock") as viewer:
        listener.accept()[0].close()
        assert viewer.recv(1) == b""


def test_an_agent_that_lives_is_left_alone(tmp_path: Path) -> None:
    """The second one does not take the name away from it."""
    with listen(tmp_path / "top.sock"), pytest.raises(FileExistsError, match="another agent"):
        listen(tmp_path / "top.sock")


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """unix(7) allows 107 bytes; state folders may lie deeper."""
    deep = tmp_path / ("d" * 120) / "top.sock"
    deep.parent.mkdir()
    with listen(deep) as listener, connect(deep) as viewer:
        accepted, _ = listener.accept()
        with accepted:
            viewer.sendall(b"x")
            accepted.setblocking(True)
            assert accepted.recv(1) == b"x"


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    """For the caller to explain; nothing is left open."""
    for call in (listen, connect):
        with pytest.raises(OSError, match="No such file"):
            call(tmp_path / "absent" / "top.sock")


def test_without_descriptors_it_is_patient_and_serves_when_there_are_some_again(agent: Agent) -> None:
    """A viewer that came meanwhile gets its lines, and the waiting costs no time of the processor."""
    with closing(agent.serve()), socket.socket(socket.AF_UNIX) as late:
        with no_descriptors():
            late.connect(str(agent.path))
            spent_s = time.process_time()
            time.sleep(1.2)
            spent_s = time.process_time() - spent_s
        assert spent_s < 0.6
        late.settimeout(30)
        assert late.recv(1) == b"0"
