import os
from pathlib import Path

import pytest

from agent.telemetry.power import EventCounter, Flag
from agent.telemetry.raspberry_pi import RaspberryPi, vcgencmd
from agent.telemetry.vitals import VitalsWatch
from tests.support.boards import unfold


def count(*flags: Flag) -> list[tuple[bool | None, int | None]]:
    """What a counter says after each look."""
    counter = EventCounter()
    said = []
    for flag in flags:
        counter.look(flag)
        said.append((counter.now, counter.count))
    return said


def test_an_event_is_a_beginning() -> None:
    """However long it lasts, it is one; what is so at the first look has begun as well."""
    off, on = Flag(now=False), Flag(now=True)
    assert count(on, on, off, on, on, off) == [(True, 1), (True, 1), (False, 1), (True, 2), (True, 2), (False, 2)]


def test_what_the_board_remembers_is_not_missed() -> None:
    """Its sticky bit rises although it is over by the time of the look: one event. What had happened before is none."""
    assert count(Flag(False, 0), Flag(False, 1), Flag(False, 1)) == [(False, 0), (True, 1), (False, 1)]
    assert count(Flag(False, 1), Flag(False, 1)) == [(False, 0), (False, 0)]


def test_a_counter_of_the_hardware_may_rise_by_thousands() -> None:
    """A Jetson counts every over-current; ours are the times in which there were some, comparable across boards."""
    looks = [Flag(seen=15), Flag(seen=4_015), Flag(seen=9_000), Flag(seen=9_000), Flag(seen=9_001)]
    assert [events for _, events in count(*looks)] == [0, 1, 1, 1, 2]


def test_what_the_board_cannot_tell_is_not_counted() -> None:
    """No zero takes the place of not knowing."""
    assert count(Flag(), Flag()) == [(None, None), (None, None)]


def test_a_gap_in_the_readings_makes_no_event() -> None:
    """A file that cannot be read for a moment, and says afterwards what it said before."""
    assert count(Flag(False, 3), Flag(), Flag(False, 3))[-1] == (False, 0)


class Clock:
    """Seconds that the test moves on."""

    now_s = 0.0

    def __call__(self) -> float:
        """This moment."""
        return self.now_s


def test_a_watch_counts_what_happens_between_two_messages(tmp_path: Path) -> None:
    """A Pi's supply dips twice, its clock is capped once in between: counted, and gone by the time of the next look."""
    unfold("raspberry-pi-4", tmp_path)
    flags = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    alarm = tmp_path / "sys/class/hwmon/hwmon2/in0_lcrit_alarm"
    clock = Clock()
    watch = VitalsWatch(tmp_path, clock_s=clock)
    for said, low in (("0", "0"), ("50005", "1"), ("50000", "0"), ("20002", "0"), ("10001", "1"), ("0", "0")):
        clock.now_s += 1.0
        flags.write_text(said + "\n", encoding="ascii")
        alarm.write_text(low + "\n", encoding="ascii")
        watch.tick()
    latest = watch.latest
    assert (latest.undervoltage, latest.undervoltage_events) == (False, 2)
    assert (latest.throttled, latest.throttled_events) == (False, 2)


def test_a_watch_looks_once_a_second(tmp_path: Path) -> None:
    """However often the main thread wakes up."""
    clock = Clock()
    watch = VitalsWatch(tmp_path, clock_s=clock)
    looks = []
    for _ in range(40):
        clock.now_s += 0.25
        looks.append(watch.tick().at_s)
    assert sorted(set(looks)) == [float(second) for second in range(11)]


def test_a_pi_whose_kernel_does_not_tell_is_asked_by_its_program(tmp_path: Path) -> None:
    """Mainline has the under-voltage alarm only; `vcgencmd get_throttled` has the rest."""
    unfold("raspberry-pi-zero-2-w", tmp_path)

    def throttled(flags: int) -> bool | None:
        return RaspberryPi(tmp_path, lambda: flags).read().throttled.now

    assert [throttled(flags) for flags in (0x50005, 0x50000, 0x8, 0x0)] == [True, False, True, False]


def test_a_program_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    """In a sandbox there is no /dev/vcio, and never will be."""
    unfold("raspberry-pi-zero-2-w", tmp_path)
    asked = []
    pi = RaspberryPi(tmp_path, lambda: asked.append(1))
    assert [pi.read().throttled for _ in range(3)] == [Flag()] * 3
    assert asked == [1]


def test_only_a_raspberry_pi_is_asked(tmp_path: Path) -> None:
    """Nobody else has that firmware."""
    unfold("jetson-nano", tmp_path)
    assert RaspberryPi(tmp_path, lambda: 0x50005).read().throttled == Flag()


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ('test "$1" = get_throttled && echo throttled=0x50005', 0x50005),
        ("echo throttled=0x0", 0),
        ("echo VCHI initialization failed; exit 255", None),
        ("echo nonsense", None),
    ],
)
def test_the_program_is_read_as_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, answer: int | None
) -> None:
    """A real process: its words, its failure, its nonsense."""
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert vcgencmd() == answer


def test_without_the_program_there_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run, nothing is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vcgencmd() is None
