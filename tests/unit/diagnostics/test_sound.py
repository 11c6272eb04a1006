from dataclasses import replace

import pytest

from agent.audio.monitor import Condition
from agent.diagnostics import Status
from agent.diagnostics.sound import Heard, findings

WELL = Heard(10.0, -60.0, -15.0, silent=False, overruns=0, condition=Condition(clip_pct=0.0, offset_pct=0.1))


def test_a_good_microphone_is_told_its_levels() -> None:
    """One line, for comparison with the next one."""
    (finding,) = findings(WELL)
    assert finding.status is Status.OK
    assert "quiet at -60 dBFS, at its loudest -15 dBFS" in finding.text


@pytest.mark.parametrize(
    ("heard", "status", "text"),
    [
        (replace(WELL, problem="the microphone hangs: replug it"), Status.FAIL, "replug it"),
        (replace(WELL, silent=True), Status.FAIL, "dead silence for 10 s"),
        (replace(WELL, overruns=2), Status.WARN, "2 overruns in 10 s"),
        (replace(WELL, condition=Condition(gaps=1, lost_s=0.25)), Status.WARN, "0.25 s of sound lost"),
        (replace(WELL, condition=Condition(clip_pct=12.0)), Status.WARN, "12 % of the time"),
        (replace(WELL, condition=Condition(offset_pct=-6.0)), Status.WARN, "off by -6 %"),
        (replace(WELL, floor_dbfs=-30.0), Status.WARN, "never quieter than -30"),
        (replace(WELL, loudest_dbfs=-55.0), Status.WARN, "never louder than -55"),
    ],
)
def test_what_is_wrong_is_one_finding_with_its_remedy(heard: Heard, status: Status, text: str) -> None:
    """A fault names itself and what to do; errors of the source bring their own remedy."""
    (finding,) = findings(heard)
    assert finding.status is status
    assert text in finding.text
    assert finding.remedy or heard.problem
