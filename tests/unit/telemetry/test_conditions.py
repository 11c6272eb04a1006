from pathlib import Path

import pytest

from agent.telemetry.conditions import HostConditions, pull_codes
from agent.telemetry.vitals import Vitals


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
        conditions.codes(Vitals(at_s=float(second), undervoltage=second < 100 and second % 20 == 0))
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
    vitals = Vitals(at_s=0.0, cpu_temp_c=90.0, throttled=True, undervoltage=True)
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
