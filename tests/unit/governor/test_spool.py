import stat
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.audio import Utterance
from agent.governor.spool import Spool

ROOM = 1 << 20


def utterance(name: str = "01A", samples: int = 16_000) -> Utterance:
    """Noise, so that samples can be told from one another."""
    pcm = np.random.default_rng(len(name)).integers(-1_000, 1_000, samples).astype(np.int16)
    return Utterance(name, pcm, 5, 7_000, 15_000, 15_900, truncated=True, speech_s=0.5, speech_prob=0.9)


def test_what_comes_back_is_what_was_kept(tmp_path: Path) -> None:
    """Every sample and every field, also for the next start."""
    assert Spool(tmp_path, ROOM).put(utterance())
    kept = Spool(tmp_path, ROOM).oldest()
    assert kept
    assert np.array_equal(kept.utterance.pcm, utterance().pcm)
    nothing = np.zeros(0, np.int16)
    assert replace(kept.utterance, pcm=nothing) == replace(utterance(), pcm=nothing)


def test_the_oldest_comes_first_and_goes_when_it_is_removed(tmp_path: Path) -> None:
    """Ids tell the order, whatever the order of keeping."""
    spool = Spool(tmp_path, ROOM)
    for name in ("01B", "01A", "01C"):
        assert spool.put(utterance(name))
    order = []
    while kept := spool.oldest():
        order.append(kept.utterance.id)
        spool.remove(kept.path)
    assert order == ["01A", "01B", "01C"]
    assert len(spool) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_room_is_bounded_over_restarts(tmp_path: Path) -> None:
    """What does not fit is refused, until something has gone."""
    room = 3 * 32_000
    spool = Spool(tmp_path, room)
    assert [spool.put(utterance(f"01{letter}")) for letter in "ABC"] == [True, True, False]
    spool = Spool(tmp_path, room)
    assert not spool.put(utterance("01D"))
    kept = spool.oldest()
    assert kept
    spool.remove(kept.path)
    assert spool.put(utterance("01D"))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """It is somebody's voice: mode 0600, in a folder of mode 0700."""
    Spool(tmp_path, ROOM).put(utterance())
    (file,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "another"])
def test_what_is_damaged_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Deleted, with a line in the log, and the next one comes; what a crash left half written goes as well."""
    spool = Spool(tmp_path, ROOM)
    spool.put(utterance("01A"))
    spool.put(utterance("01B"))
    path = tmp_path / "spool" / "01A.npz"
    whole = path.read_bytes()
    damaged = {"empty": b"", "cut": whole[:500], "garbage": b"x" * 500}
    path.write_bytes(damaged.get(damage, (tmp_path / "spool" / "01B.npz").read_bytes()))
    (tmp_path / "spool" / "01C.new").write_bytes(b"half")
    kept = Spool(tmp_path, ROOM).oldest()
    assert kept
    assert kept.utterance.id == "01B"
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["01B.npz"]
    assert "deleted" in caplog.text


def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The utterance is not kept, and the log says why."""
    (tmp_path / "spool").write_text("in the way")
    assert not Spool(tmp_path, ROOM).put(utterance())
    assert "cannot be written" in caplog.text


def test_after_a_reboot_the_wall_clock_tells_when_it_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock begins anew with the machine."""
    now_ns = 10_000_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    Spool(tmp_path, ROOM).put(replace(utterance(), started_ns=now_ns - 4_000_000_000))
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    monkeypatch.setattr("time.monotonic_ns", lambda: 50_000_000_000)
    monkeypatch.setattr("time.time", lambda: 1_000_020.0)
    kept = Spool(tmp_path, ROOM).oldest()
    assert kept
    assert kept.utterance.started_ns == 50_000_000_000 - 24_000_000_000


def test_what_was_kept_was_said_before_now_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a clock of its own may wake up in the past."""
    Spool(tmp_path, ROOM).put(utterance())
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    monkeypatch.setattr("time.time", lambda: 0.0)
    kept = Spool(tmp_path, ROOM).oldest()
    assert kept
    assert kept.utterance.started_ns + kept.utterance.duration_s * 1e9 <= time.monotonic_ns()


def test_a_purge_leaves_nothing(tmp_path: Path) -> None:
    """And says how much there was."""
    spool = Spool(tmp_path, ROOM)
    spool.put(utterance("01A"))
    spool.put(utterance("01B"))
    assert spool.purge() == 2
    assert list((tmp_path / "spool").iterdir()) == []
