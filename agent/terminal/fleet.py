"""What is known of the devices of a fleet, from their messages. Pure: messages and time come in, nothing is shown here.

Whatever a broker delivers may have been written by anybody: what does not keep the contract is counted and left alone,
and text is freed of what could steer a terminal.
"""

import re
from collections import OrderedDict, deque
from dataclasses import replace
from typing import Final

from agent.mqtt.subscriber import Received
from agent.terminal.device import Device, Event, Standing
from agent.terminal.reading import READERS, Reading

MAX_DEVICES: Final = 20_000
"""Beyond, new ones are counted and not shown."""
_REMEMBERED_IDS: Final = 1_000
_TOPIC: Final = re.compile(r"edgescribe/v1/([a-z0-9-]{1,36})/([a-z_/]+)")


class Fleet:
    """Devices and the last transcripts. Belongs to one thread."""

    def __init__(self, last: int) -> None:
        self.devices: dict[str, Device] = {}
        self.transcripts: deque[Event] = deque(maxlen=last)
        self.malformed = 0
        """Messages that do not keep the contract."""
        self.unshown = 0
        """Messages of devices beyond `MAX_DEVICES`."""
        self._seen: OrderedDict[str, None] = OrderedDict()

    def receive(self, received: Received) -> Event | None:
        """Take a message in; return what is worth a line, None if nothing is."""
        found = _TOPIC.fullmatch(received.topic)
        reader = READERS.get(found[2]) if found else None
        if found is None or reader is None or not received.payload:
            return None
        device = self.devices.get(found[1])
        if device is None and len(self.devices) >= MAX_DEVICES:
            self.unshown += 1
            return None
        try:
            # Not UTF-8 is a ValueError as well; JSON may be nested without end.
            reading = reader(device or Device(found[1], received.received_s), received.payload.decode(), received)
        except (ValueError, RecursionError):
            self.malformed += 1
            return None
        return self._take(reading)

    def _take(self, reading: Reading) -> Event | None:
        """Keep what a message brought; nothing, if it came before: QoS 1 is at least once."""
        if reading.key and self._repeated(f"{reading.device.id} {reading.key}"):
            return None
        self.devices[reading.device.id] = reading.device
        if reading.key and reading.event:
            self.transcripts.append(reading.event)
        return reading.event

    def _repeated(self, key: str) -> bool:
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return False

    def resumed(self, now_s: float) -> None:
        """We were away: what was not heard in the meantime says nothing about the devices."""
        for device_id, device in self.devices.items():
            self.devices[device_id] = replace(device, first_s=now_s, telemetry_s=None)

    def by_urgency(self, now_s: float) -> list[Device]:
        """All devices, those first that somebody should look after."""
        return sorted(self.devices.values(), key=lambda device: (-device.standing(now_s), device.id))

    def count(self, now_s: float) -> dict[Standing, int]:
        """How many devices there are of each standing; those of none are left out."""
        standings = [device.standing(now_s) for device in self.devices.values()]
        return {standing: standings.count(standing) for standing in reversed(Standing) if standing in standings}
