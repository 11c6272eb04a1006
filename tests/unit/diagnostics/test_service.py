from dataclasses import replace

import pytest

from agent.diagnostics.finding import Status
from agent.diagnostics.service import Unit, devices, exposure, findings

WELL = Unit("active", 0, 1.2, ("char-alsa",), memory_limited=True)


def test_a_unit_as_it_is_delivered_is_well() -> None:
    """It says how exposed it is, and what it may open."""
    lines = list(findings(WELL))
    assert {finding.status for finding in lines} == {Status.OK}
    assert "exposure 1.2 of 10; of /dev it may open char-alsa" in [finding.text for finding in lines]


@pytest.mark.parametrize(
    ("unit", "subject"),
    [
        (replace(WELL, state="failed"), "service"),
        (replace(WELL, exposure=9.2), "sandbox"),
        (replace(WELL, devices=()), "sandbox"),
        (replace(WELL, memory_limited=False), "memory limit"),
    ],
)
def test_what_is_loose_or_broken_is_said_with_its_remedy(unit: Unit, subject: str) -> None:
    """One finding each, and never without something to do."""
    (finding,) = [each for each in findings(unit) if each.status is not Status.OK]
    assert finding.subject == subject
    assert finding.remedy


def test_systemds_own_words_are_understood() -> None:
    """As systemd 252 prints them."""
    assert exposure("x\n→ Overall exposure level for edgescribe.service: 1.2 OK :-)\n") == 1.2
    assert exposure("Unit edgescribe.service could not be found.") is None
    shown = "DevicePolicy=closed\nDeviceAllow=char-alsa rw\nDeviceAllow=/dev/nvmap rw\n"
    assert devices(shown) == ("char-alsa", "/dev/nvmap")
    assert devices("DeviceAllow=char-alsa rw /dev/nvmap rw\n") == ("char-alsa", "/dev/nvmap")


@pytest.mark.parametrize("file", ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt", ""])
def test_the_command_line_of_the_kernel_is_where_the_board_has_it(file: str) -> None:
    """Only a Raspberry Pi has such a file: since Debian 12 below /boot/firmware, before that below /boot."""
    unit = replace(WELL, memory_limited=False, command_line=file)
    (finding,) = [each for each in findings(unit) if each.status is not Status.OK]
    assert (file or "of the kernel") in finding.remedy
    assert ("cmdline.txt" in finding.remedy) is bool(file)
