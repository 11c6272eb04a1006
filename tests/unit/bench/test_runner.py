from pathlib import Path

from agent.bench.clips import Clip
from agent.bench.records import Measurement
from agent.bench.runner import Step, done, plan
from agent.bench.systems import System, parse_system

SYSTEMS = [parse_system(f"whisper_cpp:{name}") for name in ("one", "two", "three")]


def clips(count: int, language: str = "en") -> list[Clip]:
    """Some clips."""
    return [Clip("set", f"{language}{number}", Path("x.flac"), language, "text", 1.0) for number in range(count)]


def names(steps: list[Step]) -> list[str]:
    """Models in the order of the steps."""
    return [step.system.model for step in steps]


def measured(step: Step) -> Measurement:
    """A result of that step."""
    return Measurement(
        system=step.system.name,
        set_name=step.clip.set_name,
        clip_id=step.clip.id,
        repeat=step.repeat,
        language="en",
        reference="",
        audio_s=1.0,
        text="",
        wall_s=0.1,
        cpu_s=0.1,
        peak_rss_bytes=1,
        pss_bytes=1,
    )


def test_every_system_hears_a_clip_before_the_next_clip_comes() -> None:
    """Whatever slows the machine for a while slows all systems, on the same sound."""
    steps = plan(SYSTEMS, clips(4), repeats=1)
    for start in range(0, len(steps), 3):
        assert len({step.clip.id for step in steps[start : start + 3]}) == 1
        assert len({step.system.name for step in steps[start : start + 3]}) == 3


def test_everybody_begins_in_turn() -> None:
    """Who comes first after a pause has cold caches; over a run each system does, equally often."""
    steps = plan(SYSTEMS, clips(6), repeats=1)
    first = names(steps[::3])
    assert sorted(first) == sorted(["one", "two", "three"] * 2)


def test_every_repeat_takes_every_step_once() -> None:
    """Nothing is left out and nothing is done twice."""
    steps = plan(SYSTEMS, clips(5), repeats=3, block=2)
    assert len({step.key for step in steps}) == len(steps) == 3 * 5 * 3


def test_blocks_spare_loading() -> None:
    """Where systems must take turns in memory, each one stays for a whole block."""
    steps = plan(SYSTEMS, clips(8), repeats=1, block=4)
    changes = sum(before != after for before, after in zip(names(steps), names(steps)[1:], strict=False))
    assert changes < len(SYSTEMS) * 2


def test_languages_come_one_after_the_other() -> None:
    """Engines are made anew for another language, so the order does not alternate."""
    mixed = [clip for pair in zip(clips(3, "de"), clips(3), strict=True) for clip in pair]
    multilingual: list[System] = SYSTEMS[:1]
    languages = [step.clip.language for step in plan(multilingual, mixed, repeats=1)]
    assert languages == sorted(languages)


def test_a_run_that_is_cut_short_has_heard_something_of_every_set() -> None:
    """Sets are mixed, so that whoever stops early has a sample of all of them, and resuming finds the same order."""
    sets = [Clip(f"set{number // 20}", str(number), Path("x.flac"), "en", "text", 1.0) for number in range(60)]
    steps = plan(SYSTEMS, sets, repeats=1)
    assert {step.clip.set_name for step in steps[: len(steps) // 4]} == {"set0", "set1", "set2"}
    assert plan(SYSTEMS, sets, repeats=1) == steps


def test_a_resumed_run_knows_what_is_done() -> None:
    """The keys of results are the keys of the steps they came from, and the second pass is not the first."""
    steps = plan(SYSTEMS, clips(2), repeats=2)
    for count in (5, 6, 8):
        taken = done([measured(step) for step in steps[:count]])
        assert [step for step in steps if step.key not in taken] == steps[count:]
