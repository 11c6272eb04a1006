import errno
import json
import os
import random
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent.config.settings import DiscoverySettings
from agent.mqtt.client import MqttClient
from agent.mqtt.delivery import Outgoing
from agent.mqtt.discovery import FILE, MIGRATE, STEP_S, Announcer
from tests.unit.mqtt.test_discovery import COMPONENT, DEVICE, FACTS, OFF


class Link:
    """What an announcer needs of the sink."""

    def __init__(self) -> None:
        self.connected = True
        self.answering = True
        self.posted: list[Outgoing] = []
        self.repeats = 0

    def post(self, outgoing: Outgoing) -> None:
        """Write it down."""
        self.posted.append(outgoing)

    def repeat(self) -> None:
        """Count it."""
        self.repeats += 1

    def has_taken(self, topics: Collection[str]) -> bool:
        """Whether the broker has answered; what nobody has sent it does not owe."""
        return self.answering or not topics

    def taken(self) -> list[Outgoing]:
        """What was posted since the last look."""
        taken, self.posted = self.posted, []
        return taken


class Rig:
    """An announcer with a clock that is wound by hand."""

    def __init__(self, folder: Path, settings: DiscoverySettings, serial: str | None = None) -> None:
        self.link = Link()
        self.now_s = 100.0
        chance = random.Random(1)  # noqa: S311 - jitter, not a secret
        link = cast("MqttClient", self.link)
        self.announcer = Announcer(settings, link, folder, serial=serial, chance=chance, clock_s=lambda: self.now_s)

    def later(self, seconds: float) -> list[Outgoing]:
        """What is posted when so much time has gone by."""
        self.now_s += seconds
        self.announcer.tick()
        return self.link.taken()

    def settle(self) -> None:
        """Announce and wait until nothing is left to do."""
        self.announcer.announce(FACTS)
        for _ in range(5):
            self.later(STEP_S)


def test_announcements_are_retained_and_certain(tmp_path: Path) -> None:
    """QoS 1, so that the broker has it; retained, so that Home Assistant finds it."""
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(FACTS)
    (config,) = rig.link.taken()
    assert (config.topic, config.qos, config.retained) == ("homeassistant/device/living-room/config", 1, True)


def test_what_has_not_changed_is_not_said_again(tmp_path: Path) -> None:
    """A slider that moves is no reason to send all of it; another model on the list is."""
    rig = Rig(tmp_path, DEVICE)
    rig.settle()
    rig.announcer.announce(FACTS)
    assert rig.link.taken() == []
    rig.announcer.announce(replace(FACTS, models=("tiny.en-q8_0",)))
    assert len(rig.link.taken()) == 1


def test_switching_off_withdraws_what_an_earlier_run_announced(tmp_path: Path) -> None:
    """The state folder remembers it; once it is done, nothing is withdrawn any more."""
    Rig(tmp_path, COMPONENT).settle()
    rig = Rig(tmp_path, OFF)
    rig.announcer.announce(FACTS)
    assert {outgoing.payload for outgoing in rig.link.taken()} == {b""}
    rig.later(STEP_S)
    again = Rig(tmp_path, OFF)
    again.announcer.announce(FACTS)
    assert again.link.taken() == []


def test_batches_wait_for_home_assistant_and_for_the_broker(tmp_path: Path) -> None:
    """A change of mode takes three steps, 5 s apart, and none of them is made while there is no connection."""
    Rig(tmp_path, COMPONENT).settle()
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(FACTS)
    assert {outgoing.payload for outgoing in rig.link.taken()} == {MIGRATE}
    assert rig.later(STEP_S / 2) == []
    rig.link.connected = False
    assert rig.later(10 * STEP_S) == []
    rig.link.connected = True
    assert rig.later(STEP_S / 2) == []
    (config,) = rig.later(STEP_S)
    assert config.topic == "homeassistant/device/living-room/config"
    assert {outgoing.payload for outgoing in rig.later(STEP_S)} == {b""}


def test_what_the_broker_has_not_answered_is_neither_forgotten_nor_followed(tmp_path: Path) -> None:
    """A withdrawal may be lost with the link: until the broker has it, the state folder knows what stands there."""
    Rig(tmp_path, COMPONENT).settle()
    rig = Rig(tmp_path, OFF)
    rig.link.answering = False
    rig.announcer.announce(FACTS)
    withdrawn = {outgoing.topic for outgoing in rig.link.taken()}
    assert rig.later(10 * STEP_S) == []
    crashed = Rig(tmp_path, OFF)
    crashed.announcer.announce(FACTS)
    assert {outgoing.topic for outgoing in crashed.link.taken()} == withdrawn
    rig.link.answering = True
    rig.later(STEP_S)
    again = Rig(tmp_path, OFF)
    again.announcer.announce(FACTS)
    assert again.link.taken() == []


def test_home_assistant_has_its_time_from_the_brokers_answer_on(tmp_path: Path) -> None:
    """What was sent is not yet what it has seen."""
    Rig(tmp_path, COMPONENT).settle()
    rig = Rig(tmp_path, DEVICE)
    rig.link.answering = False
    rig.announcer.announce(FACTS)
    rig.link.taken()
    assert rig.later(10 * STEP_S) == []
    rig.link.answering = True
    assert rig.later(STEP_S / 2) == []
    assert len(rig.later(STEP_S / 2)) == 1


def test_a_memory_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full, or the power goes: half a file would withdraw nothing at all."""
    Rig(tmp_path, COMPONENT).settle()
    before = (tmp_path / FILE).read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    Rig(tmp_path, DEVICE).settle()
    assert (tmp_path / FILE).read_bytes() == before
    assert f"{tmp_path / FILE}: cannot be written (No space left on device" in caplog.text


def test_what_a_crash_interrupted_is_finished_by_the_next_run(tmp_path: Path) -> None:
    """The old announcements count as standing until they are certain to be gone."""
    Rig(tmp_path, COMPONENT).settle()
    Rig(tmp_path, DEVICE).announcer.announce(FACTS)
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(FACTS)
    rig.later(STEP_S)
    emptied = rig.later(STEP_S)
    assert "homeassistant/event/living-room/transcript/config" in {outgoing.topic for outgoing in emptied}


def test_a_component_that_was_never_certain_to_go_is_withdrawn_again(tmp_path: Path) -> None:
    """The run that removed a keyword ended at once."""
    Rig(tmp_path, DEVICE).settle()
    fewer = replace(FACTS, keywords=())
    Rig(tmp_path, DEVICE).announcer.announce(fewer)
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(fewer)
    (first,) = rig.link.taken()
    assert {"p": "device_automation"} in json.loads(first.payload)["cmps"].values()


def test_a_birth_is_answered_once_within_ten_seconds(tmp_path: Path) -> None:
    """Not at once: a fleet answers spread over 1 to 10 s."""
    rig = Rig(tmp_path, DEVICE)
    rig.settle()
    rig.announcer.born()
    rig.later(0.9)
    assert rig.link.repeats == 0
    rig.later(9.1)
    assert rig.link.repeats == 1
    rig.later(60.0)
    assert rig.link.repeats == 1


@pytest.mark.parametrize("content", ["", "null", "[]", '{"mode": "device"}'])
def test_a_memory_that_makes_no_sense_is_no_obstacle(tmp_path: Path, content: str) -> None:
    """The device is announced all the same."""
    (tmp_path / FILE).write_text(content)
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(FACTS)
    assert len(rig.link.taken()) == 1


def test_what_was_announced_is_written_again_where_its_file_was_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a later run could not withdraw it. Where it cannot be written, one line says so."""
    folder = tmp_path / "state"
    rig = Rig(folder, DEVICE)
    rig.settle()
    text = (folder / FILE).read_bytes()
    shutil.rmtree(folder)
    folder.touch()
    for _ in range(3):
        rig.announcer.keep()
    assert len(caplog.records) == 1
    folder.unlink()
    rig.announcer.keep()
    assert (folder / FILE).read_bytes() == text


RENAMED = replace(FACTS, device_id="kitchen")


def erasures(rig: Rig) -> set[str]:
    """Topics that the device of the new name withdraws."""
    rig.announcer.announce(RENAMED)
    return {outgoing.topic for outgoing in rig.link.taken() if not outgoing.payload}


@pytest.mark.parametrize("settings", [DEVICE, OFF])
def test_a_former_id_is_remembered_until_nothing_is_left_of_it(tmp_path: Path, settings: DiscoverySettings) -> None:
    """Also where nothing is announced; and no longer than that."""
    Rig(tmp_path, settings).settle()
    unanswered = Rig(tmp_path, settings)
    unanswered.link.answering = False
    assert "edgescribe/v1/living-room/status" in erasures(unanswered)
    again = Rig(tmp_path, settings)
    assert "edgescribe/v1/living-room/status" in erasures(again)
    for _ in range(5):
        again.later(STEP_S)
    assert erasures(Rig(tmp_path, settings)) == set()


def test_a_copied_card_leaves_the_topics_of_the_other_device_alone(tmp_path: Path) -> None:
    """The other one lives on under its name."""
    Rig(tmp_path, DEVICE, serial="10000000a").settle()
    assert erasures(Rig(tmp_path, DEVICE, serial="10000000b")) == set()


def test_a_board_without_a_serial_number_is_taken_for_the_same(tmp_path: Path) -> None:
    """A PC tells none."""
    Rig(tmp_path, DEVICE, serial="10000000a").settle()
    assert erasures(Rig(tmp_path, DEVICE)) != set()
