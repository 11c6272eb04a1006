from dataclasses import replace
from pathlib import Path

import pytest

from agent.bench.child import System
from agent.bench.clips import Clip
from agent.bench.records import IdleMeasurement, LatencyBlock, LeftOut, SystemSetup
from agent.bench.steps import (
    CLIPS_A_BLOCK,
    Step,
    left_out,
    new_setups,
    plan_clips,
    plan_idle,
    plan_latency,
    setup_of,
    steps_left,
)
from agent.bench.systems import parse_system, with_threads
from agent.errors import ConfigError

PAIR = [parse_system("whisper_cpp:tiny.en-q8_0"), parse_system("wyoming-faster-whisper:tiny.en-ct2")]
OUT = Path("results")
SETUP = SystemSetup("whisper_cpp:m", {"threads": "1", "context": "follow"}, "aaaa")
SYSTEMS = [parse_system(f"whisper_cpp:{name}") for name in ("one", "two", "three")]


def clips(count: int, language: str = "en") -> list[Clip]:
    """Some clips."""
    return [Clip("set", f"{language}{number}", Path("x.flac"), language, "text", 1.0) for number in range(count)]


def names(steps: list[Step]) -> list[str]:
    """Models in the order of the steps."""
    return [step.system.model for step in steps]


def test_every_system_hears_a_clip_before_the_next_clip_comes() -> None:
    """Whatever slows the machine for a while slows all systems, on the same sound."""
    steps = plan_clips(SYSTEMS, clips(4), repeats=1)
    for start in range(0, len(steps), 3):
        assert len({step.clips[0].id for step in steps[start : start + 3]}) == 1
        assert len({step.system.name for step in steps[start : start + 3]}) == 3


def test_everybody_begins_in_turn() -> None:
    """Who comes first after a pause has cold caches; over a run each system does, equally often."""
    steps = plan_clips(SYSTEMS, clips(6), repeats=1)
    first = names(steps[::3])
    assert sorted(first) == sorted(["one", "two", "three"] * 2)


def test_every_repeat_takes_every_step_once() -> None:
    """Nothing is left out and nothing is done twice."""
    steps = plan_clips(SYSTEMS, clips(5), repeats=3, block=2)
    assert len({step.key for step in steps}) == len(steps) == 3 * 5 * 3


def test_blocks_spare_loading() -> None:
    """Where systems must take turns in memory, each one stays for a whole block."""
    steps = plan_clips(SYSTEMS, clips(8), repeats=1, block=4)
    changes = sum(before != after for before, after in zip(names(steps), names(steps)[1:], strict=False))
    assert changes < len(SYSTEMS) * 2


def test_languages_come_one_after_the_other() -> None:
    """Engines are made anew for another language, so the order does not alternate."""
    mixed = [clip for pair in zip(clips(3, "de"), clips(3), strict=True) for clip in pair]
    multilingual: list[System] = SYSTEMS[:1]
    languages = [step.clips[0].language for step in plan_clips(multilingual, mixed, repeats=1)]
    assert languages == sorted(languages)


def test_a_run_that_is_cut_short_has_heard_something_of_every_set() -> None:
    """Sets are mixed, so that whoever stops early has a sample of all of them, and resuming finds the same order."""
    sets = [Clip(f"set{number // 20}", str(number), Path("x.flac"), "en", "text", 1.0) for number in range(60)]
    steps = plan_clips(SYSTEMS, sets, repeats=1)
    assert {step.clips[0].set_name for step in steps[: len(steps) // 4]} == {"set0", "set1", "set2"}
    assert plan_clips(SYSTEMS, sets, repeats=1) == steps


def test_all_systems_get_a_block_before_the_next_one() -> None:
    """Each clip is heard once by each system, and another system begins with every block."""
    steps = plan_latency(PAIR, clips(CLIPS_A_BLOCK + 3), repeats=1)
    assert [step.name for step in steps] == ["block 0", "block 0", "block 1", "block 1"]
    assert [step.system.name for step in steps] == [PAIR[0].name, PAIR[1].name, PAIR[1].name, PAIR[0].name]
    assert [len(step.clips) for step in steps] == [CLIPS_A_BLOCK] * 2 + [3] * 2


def test_only_what_all_can_answer_is_asked() -> None:
    """Neither noise, on which nothing is awaited, nor a language that one of them does not know."""
    steps = plan_latency(PAIR, clips(2) + clips(2, "none") + clips(2, "de"), repeats=1)
    assert {clip.language for step in steps for clip in step.clips} == {"en"}


def test_a_block_of_other_clips_is_another_block() -> None:
    """With another --limit the same name means other clips. A clip that could not be read is no other clip."""
    steps = plan_latency(PAIR, clips(3), repeats=1)
    block = LatencyBlock(PAIR[0].name, "block 0", 0, 1.0, 1.0, 1, ("set/en0", "set/en2"), ())
    assert steps_left(steps, [block]) == steps[1:]
    with pytest.raises(ConfigError, match="other clips"):
        steps_left(steps, [replace(block, clips=("set/en0", "set/en9"))])


def test_systems_take_turns_at_rest() -> None:
    """Whatever slows the machine in one pass slows all systems, and nothing is done twice."""
    steps = plan_idle(SYSTEMS, repeats=2)
    assert [step.key for step in steps] == [(system.name, "idle", repeat) for repeat in range(2) for system in SYSTEMS]
    done = [IdleMeasurement(step.system.name, "idle", step.repeat, 1.0, 1.0, 1.0, 1, 0) for step in steps[:4]]
    assert steps_left(steps, done) == steps[4:]


@pytest.mark.parametrize(
    ("settings", "digest", "complaint"),
    [
        ({"threads": "2", "context": "follow"}, "aaaa", "threads 1, not 2"),
        ({"threads": "1", "context": "full"}, "aaaa", "context follow, not full"),
        ({"threads": "1"}, "bbbb", "digest aaaa…, not bbbb…"),
    ],
)
def test_what_differs_is_named(settings: dict[str, str], digest: str, complaint: str) -> None:
    """Threads, what an engine does by default, and the weights: none of it is in the name."""
    with pytest.raises(ConfigError, match=complaint):
        new_setups(OUT, [SETUP], [SystemSetup(SETUP.system, settings, digest)])


def test_a_setting_that_one_version_has_not_is_no_difference() -> None:
    """A run may go on with a newer version that can do more."""
    other = SystemSetup("another", {}, "")
    now = SystemSetup(SETUP.system, {"threads": "1", "new": "off"}, "aaaa")
    assert new_setups(OUT, [SETUP], [now, other]) == [other]


def test_all_settings_of_our_engines_are_written_down() -> None:
    """Also those that nobody named; of a peer, what it is told."""
    ours = setup_of(with_threads(parse_system("whisper_cpp:tiny.en-q8_0"), 3), "aaaa").settings
    assert ours["threads"] == "3"
    assert "context" in ours
    assert "language" not in ours
    assert setup_of(parse_system("stock-faster-whisper:m:beam=1"), "").settings == {"beam": "1"}
    assert setup_of(parse_system("whisper_cpp:m:context=nonsense"), "").settings == {"context": "nonsense"}


def test_what_an_english_model_was_not_asked_is_counted() -> None:
    """By language, for the report; a model for all languages is not in it."""
    english, multilingual = parse_system("whisper_cpp:tiny.en-q8_0"), parse_system("whisper_cpp:tiny-q8_0")
    asked = [one for language in ("de", "en", "fr", "none", "de") for one in clips(1, language)]
    assert list(left_out([multilingual, english], asked)) == [LeftOut(english.name, {"de": 2, "fr": 1})]
