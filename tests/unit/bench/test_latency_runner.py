from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import latency_runner
from agent.bench.agent_process import AgentRun
from agent.bench.clips import Clip
from agent.bench.latency import quiet_room, string_together
from agent.bench.latency_runner import (
    CLIPS_A_BLOCK,
    BlockStep,
    LatencyRunner,
    can_be_timed,
    plan_blocks,
    refuse_other_clips,
)
from agent.bench.records import Failure, Journal, LatencyBlock, read_journal
from agent.bench.systems import parse_system
from agent.errors import ConfigError

SYSTEMS = [parse_system("whisper_cpp:tiny.en-q8_0"), parse_system("wyoming-faster-whisper:tiny.en-ct2")]


def clips(count: int, language: str = "en") -> list[Clip]:
    """Some clips."""
    return [Clip("set", f"{language}{number}", Path("x.flac"), language, "text", 1.0) for number in range(count)]


def test_all_systems_get_a_block_before_the_next_one() -> None:
    """Each clip is heard once by each system, and another system begins with every block."""
    steps = plan_blocks(SYSTEMS, clips(CLIPS_A_BLOCK + 3), repeats=1)
    assert [step.block for step in steps] == [0, 0, 1, 1]
    assert [step.system.name for step in steps] == [SYSTEMS[0].name, SYSTEMS[1].name, SYSTEMS[1].name, SYSTEMS[0].name]
    assert [len(step.clips) for step in steps] == [CLIPS_A_BLOCK] * 2 + [3] * 2


def test_only_what_all_can_answer_is_asked() -> None:
    """Neither noise, on which nothing is awaited, nor a language that one of them does not know."""
    steps = plan_blocks(SYSTEMS, clips(2) + clips(2, "none") + clips(2, "de"), repeats=1)
    assert {clip.language for step in steps for clip in step.clips} == {"en"}


def test_libraries_are_no_whole_systems() -> None:
    """Latency at a subscriber needs somebody who sends."""
    assert all(map(can_be_timed, SYSTEMS))
    assert not can_be_timed(parse_system("stock-faster-whisper:tiny.en-ct2"))


def test_a_block_of_other_clips_is_another_block() -> None:
    """With another --limit the same number means other clips; earlier versions did not say which they were."""
    steps = plan_blocks(SYSTEMS, clips(3), repeats=1)
    block = LatencyBlock("any", 0, 0, audio_s=1.0, cpu_s=1.0, peak_pss_bytes=1, peak_rss_bytes=1)
    same = replace(block, clips=tuple(clip.key for clip in clips(3)))
    refuse_other_clips([block, same], steps)
    with pytest.raises(ConfigError, match="other clips"):
        refuse_other_clips([replace(block, clips=("set/en0", "set/en9"))], steps)


def test_a_clip_that_cannot_be_read_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of its block is played; the first one, which warms up, twice."""
    soundfile.write(tmp_path / "good.wav", quiet_room(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    (tmp_path / "bad.wav").write_text("no sound")
    bad, *good = [
        replace(clip, path=tmp_path / name)
        for clip, name in zip(clips(3), ("bad.wav", "good.wav", "good.wav"), strict=True)
    ]
    heard: list[int] = []

    def play(_system: object, _model: object, pcm: Pcm16, _language: str) -> AgentRun:
        heard.append(len(pcm))
        return AgentRun((), 1, 1, 1.0, 1.0, ())

    monkeypatch.setattr(latency_runner, "run_agent", play)
    journal = Journal(tmp_path)
    steps = [BlockStep(SYSTEMS[0], 0, (bad, *good), 0), BlockStep(SYSTEMS[0], 1, (bad,), 0)]
    assert list(LatencyRunner({SYSTEMS[0].name: tmp_path}, journal, None).run(steps)) == steps
    journal.close()
    failure, block, another = read_journal(tmp_path)
    assert heard == [len(string_together([quiet_room(SAMPLE_RATE_HZ)] * 3).pcm)]
    assert isinstance(failure, Failure)
    assert (failure.clip_id, failure) == (bad.id, another)
    assert isinstance(block, LatencyBlock)
    assert list(block.clips) == [clip.key for clip in good]
