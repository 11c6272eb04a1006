from dataclasses import replace
from pathlib import Path

import pytest

from agent.bench.clips import Clip
from agent.bench.latency_runner import CLIPS_A_BLOCK, can_be_timed, plan_blocks, refuse_other_clips
from agent.bench.records import LatencyBlock
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
        refuse_other_clips([replace(block, clips=("set/en0",))], steps)
