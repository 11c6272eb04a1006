import os
from pathlib import Path

import pytest

from agent.messages.telemetry import Pwr
from agent.telemetry.host import Flag
from agent.telemetry.raspberry_pi import RaspberryPi, vcgencmd
from agent.telemetry.vitals import EventCounter, HostConditions, Vitals, VitalsWatch, pull_codes
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
    assert watch.latest.power == Pwr(uv_now=False, thr_now=False, uv_events=2, thr_events=2)


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


def test_heat_ends_below_where_it_began() -> None:
    """80 °C and over is hot, until it is 75."""
    conditions = HostConditions(hot_c=80.0)
    temperatures = (79.9, 80.0, 78.0, 75.0, 74.9, 79.0, 81.0)
    said = [
        conditions.codes(Vitals(at_s=float(second), cpu_temp_c=temp_c)) for second, temp_c in enumerate(temperatures)
    ]
    assert [bool(codes) for codes in said] == [False, True, True, True, False, False, True]


def test_a_supply_that_dips_now_and_then_is_one_trouble() -> None:
    """Every 20 s for a moment: reported without a break, and for a minute afterwards."""
    conditions = HostConditions(hot_c=80.0)
    said = [
        conditions.codes(Vitals(at_s=float(second), power=Pwr(uv_now=second < 100 and second % 20 == 0)))
        for second in range(200)
    ]
    assert all(codes == ("undervoltage",) for codes in said[:140])
    assert not any(said[140:])


def test_what_is_not_known_is_no_trouble() -> None:
    """A board without sensors is neither hot nor under-powered."""
    assert HostConditions(hot_c=80.0).codes(Vitals(at_s=0.0)) == ()


def test_a_thermometer_that_falls_silent_leaves_things_as_they_were() -> None:
    """A hot board whose sensor cannot be read for a moment is still hot."""
    conditions = HostConditions(hot_c=80.0)
    conditions.codes(Vitals(at_s=0.0, cpu_temp_c=85.0))
    assert conditions.codes(Vitals(at_s=1.0)) == ("hot",)


def test_codes_stand_in_a_fixed_order() -> None:
    """So that `health` is said once, not once for each order."""
    vitals = Vitals(at_s=0.0, cpu_temp_c=90.0, power=Pwr(uv_now=True, thr_now=True))
    assert HostConditions(hot_c=80.0).codes(vitals) == ("undervoltage", "throttled", "hot")


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        ("pull_untrusted\n", ("pull_untrusted",)),
        ("pull_rewound", ("pull_rewound",)),
        ("anything else\n", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_a_refused_commit_is_told(tmp_path: Path, content: str | None, codes: tuple[str, ...]) -> None:
    """By the file that `edgescribe-pull` leaves; nothing else that stands in it gets into `health`."""
    file = tmp_path / "var/lib/edgescribe-pull.health"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert pull_codes(tmp_path) == codes
