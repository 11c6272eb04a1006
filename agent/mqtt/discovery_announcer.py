"""Keeps Home Assistant informed of what the device offers: announces, repeats after its restart, withdraws.

Remembers in `discovery.json` in the state folder what stands on the broker, so that a later run can withdraw it.
"""

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from agent.config.settings import DiscoverySettings
from agent.config.state_file import read_json, write_json
from agent.mqtt.client import MqttClient
from agent.mqtt.delivery import Outgoing
from agent.mqtt.discovery import Announced, Announcement, Batch, plan
from agent.mqtt.discovery_entities import DeviceFacts

log = logging.getLogger(__name__)

FILE: Final = "discovery.json"
_DOCUMENT: Final = TypeAdapter(Announced | None)
STEP_S: Final = 5.0
"""Time for Home Assistant to act on one batch before the next one comes."""
WELCOME_S: Final = (1.0, 10.0)
"""A fleet that answers Home Assistant's birth spreads over this."""


class Announcer:
    """Also withdraws what the broker retains of the device under a former id.

    `serial` is that of the board. A card that was copied to another board says nothing of what this device announced.
    `announce` and `born` are called from any thread, `tick` and `keep` from the main thread.
    """

    def __init__(
        self,
        settings: DiscoverySettings,
        mqtt: MqttClient,
        folder: Path,
        *,
        serial: str | None = None,
        chance: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._mqtt = mqtt
        self._path = folder / FILE
        self._serial = serial
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._batches: deque[Batch] = deque()
        self._unanswered: set[str] = set()
        """Topics of what was sent, until the broker is known to have it."""
        self._unwritten = False
        self._sent_s = 0.0
        self._repeat_at_s: float | None = None
        self._before = self._read()
        self._after: Announced | None = None
        self._facts: DeviceFacts | None = None

    def announce(self, facts: DeviceFacts) -> None:
        """Say what the device offers, if that is not what was said last."""
        with self._lock:
            if facts == self._facts:
                return
            known = self._before if self._batches else self._after or self._before
            self._batches = deque(plan(self._settings, facts, known))
            self._facts, self._after = facts, Announced.of(self._settings, facts)
            self._remember()
            self._send_next()

    def born(self) -> None:
        """Home Assistant has started: tell it everything again, soon."""
        with self._lock:
            self._repeat_at_s = self._clock_s() + self._chance.uniform(*WELCOME_S)

    def tick(self) -> None:
        """Send what is due."""
        with self._lock:
            now_s = self._clock_s()
            if not self._mqtt.connected:
                self._sent_s = now_s  # what was sent last is still on its way
                return
            if self._repeat_at_s is not None and now_s >= self._repeat_at_s:
                self._repeat_at_s = None
                self._mqtt.repeat()
            if not self._mqtt.has_taken(self._unanswered):
                self._sent_s = now_s  # Home Assistant has not heard of it either
                return
            self._unanswered.clear()
            if now_s - self._sent_s >= STEP_S:
                self._send_next()

    def keep(self) -> None:
        """Write the file again if it was deleted, or could not be written; called now and then."""
        with self._lock:
            if self._unwritten or not os.path.exists(self._path):  # noqa: PTH110 - never raises
                self._remember()

    def _send_next(self) -> None:
        self._sent_s = self._clock_s()
        if self._batches:
            for announcement in self._batches.popleft():
                self._unanswered.add(announcement.topic)
                self._mqtt.post(_outgoing(announcement))
        elif self._before is not self._after and self._mqtt.has_taken(self._unanswered):
            self._before = self._after
            self._remember()

    def _remember(self) -> None:
        """Write down what may stand on the broker: what is announced, and what is not certain to be withdrawn yet."""
        if (last := self._standing()) is None:
            return
        document = {name: getattr(last, name) for name in Announced.__slots__} | {"serial": self._serial}
        try:
            write_json(self._path, document)
        except OSError as error:
            if not self._unwritten:
                log.warning(f"{self._path}: cannot be written ({error.strerror}): announcements may not be withdrawn")
            self._unwritten = True
        else:
            self._unwritten = False

    def _standing(self) -> Announced | None:
        before, after = self._before, self._after
        if before is None or after is None:
            return before or after
        if before.mode == "off" and before.device_id == after.device_id:
            return after
        if before.mode == after.mode and after.is_beside(before):
            return after.including(before)
        return before  # only this device can withdraw it

    def _read(self) -> Announced | None:
        try:
            document = read_json(self._path)
            found = _DOCUMENT.validate_python(document)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning(f"{self._path}: is damaged ({type(error).__name__}); nothing is withdrawn")
            return None
        serial = document.get("serial") if found else None
        if found and self._serial and serial and serial != self._serial:
            log.warning(f"{self._path}: was written on another board; leaving the topics of {found.device_id} alone")
            return None
        return found


def _outgoing(announcement: Announcement) -> Outgoing:
    return Outgoing(
        announcement.topic,
        announcement.payload,
        qos=1,
        retained=True,
        content_type="application/json",
        schema="homeassistant",
        accepted_s=time.monotonic(),
    )
