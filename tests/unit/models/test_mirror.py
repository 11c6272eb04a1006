"""The mirror: pip's folder is watched while pip works in it."""

import shutil
import threading
from pathlib import Path

from agent.models.download import _wheels_bytes


def test_what_pip_removes_while_it_is_watched_disturbs_nobody(tmp_path: Path) -> None:
    """Folders and wheels come and go at any moment; what stays is counted in full."""
    (tmp_path / "whole.whl").write_bytes(b"x" * 100)
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            folder = tmp_path / "pip-download-1" / "deeper"
            folder.mkdir(parents=True)
            (folder / "part.whl").write_bytes(b"x" * 10)
            shutil.rmtree(tmp_path / "pip-download-1")

    pip = threading.Thread(target=come_and_go, name="pip")
    pip.start()
    try:
        sizes = {_wheels_bytes(tmp_path) for _ in range(2_000)}
    finally:
        ended.set()
        pip.join()
    assert sizes <= {100, 110}
    assert 100 in sizes
