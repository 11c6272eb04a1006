import socket
import stat
from pathlib import Path

import pytest

from agent.terminal.socket_address import SERVICE, connect, likely_paths, listen, own_path


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
    assert isinstance(socket.AF_UNIX, int)
