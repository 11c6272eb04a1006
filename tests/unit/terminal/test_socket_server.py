import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.terminal.feed import Feed
from agent.terminal.socket_address import VIEWERS, connect
from agent.terminal.socket_server import TopServer
from agent.worker import Worker
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

    def serve(self) -> TopServer:
        """Begin."""
        return TopServer(self.path, self.line, self.watched.append, never)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """One that does not serve yet."""
    return Agent(tmp_path / "top.sock")


def test_who_connects_is_told_until_it_goes(agent: Agent) -> None:
    """Line after line, in order; the meters run for just as long."""
    with closing(agent.serve()):
        with Feed([agent.path]) as feed:
            assert [int(feed.read()) for _ in range(3)] == [0, 1, 2]
            assert agent.watched == [True]
        assert eventually(lambda: agent.watched == [True, False])


def test_nothing_is_measured_while_nobody_looks(agent: Agent) -> None:
    """No line is made before somebody connects, and none after it has gone."""
    with closing(agent.serve()):
        assert agent.made == 0
        with Feed([agent.path]) as feed:
            feed.read()
        assert eventually(lambda: agent.watched == [True, False])
        made = agent.made
        assert not eventually(lambda: agent.made > made, 1.0)


def test_viewers_share_the_lines(agent: Agent) -> None:
    """Two see the same numbers, and the first to leave ends nothing for the other."""
    with closing(agent.serve()), Feed([agent.path]) as one:
        one.read()
        with Feed([agent.path]) as other:
            seen = int(other.read())
        assert seen in [int(one.read()) for _ in range(seen + 2)]
        assert agent.watched == [True]


def test_there_is_room_for_a_few(agent: Agent) -> None:
    """Whoever comes when they are too many is hung up on, and is told why."""
    with closing(agent.serve()):
        feeds = [Feed([agent.path]) for _ in range(VIEWERS)]
        for feed in feeds:
            feed.read()
        with Feed([agent.path]) as late, pytest.raises(AgentError, match="4 others look"):
            late.read()
        for feed in feeds:
            with feed:
                feed.read()


def test_who_does_not_read_is_hung_up_on(agent: Agent) -> None:
    """The agent never waits for a viewer: a full socket ends it, and others go on."""
    agent.padding = 20_000
    with closing(agent.serve()), connect(agent.path):
        assert eventually(lambda: agent.watched == [True, False], 60.0)
        with Feed([agent.path]) as reader:
            reader.read()


def test_its_end_is_the_end_of_all(agent: Agent) -> None:
    """No thread, no socket, no name is left; closing twice is as good as once."""
    server = agent.serve()
    with Feed([agent.path]) as feed:
        feed.read()
        assert server.close()
        with pytest.raises(AgentError, match="has ended"):
            _read_to_the_end(feed)
    assert server.close()
    assert "top" not in {thread.name for thread in threading.enumerate()}
    assert not agent.path.exists()


def _read_to_the_end(feed: Feed) -> None:
    while True:
        feed.read()


def test_where_nobody_listens_is_said_in_one_line(tmp_path: Path) -> None:
    """Which places were tried, and what to do."""
    with pytest.raises(AgentError, match=r"no agent answers at .*one nor at .*two: is it running"):
        Feed([tmp_path / "one", tmp_path / "two"])
