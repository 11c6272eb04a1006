"""What the MQTT sink has to deliver, by how it is to be delivered."""

import threading
from collections import deque
from collections.abc import Collection

from agent.messages import PartialTranscript
from agent.mqtt.delivery import Outgoing
from agent.mqtt.outbox import Outbox

_FLEETING = 32
"""QoS 0 messages that may wait for the thread to come round; the oldest go first. They are worth nothing later."""
_ANSWERS = 64
"""Answers that may wait likewise."""


class OutgoingQueue:
    """Sorts messages: retained ones are kept as last value, QoS 1 goes to the outbox, QoS 0 is forgotten when offline.

    So are answers (QoS 1, but not to be kept): who asked has given up by then. An empty retained message, which makes
    the broker forget a topic, is sent until the broker has answered it.

    `put` is called from any thread; the rest from the sink's thread.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._lock = threading.Lock()
        self._online = False
        self._last: dict[str, Outgoing] = {}
        self._unsent: dict[str, Outgoing] = {}
        # Retained messages that the broker has not answered. Being handed out is not enough: the link may break first.
        self._owed: dict[str, Outgoing] = {}
        self._answers: deque[Outgoing] = deque(maxlen=_ANSWERS)
        self._fleeting: deque[Outgoing] = deque(maxlen=_FLEETING)

    def put(self, outgoing: Outgoing) -> bool:
        """Accept a message; False if the outbox had to drop an older one for it."""
        if outgoing.qos and outgoing.persistent and not outgoing.retained:
            return self.outbox.put(outgoing)
        with self._lock:
            if outgoing.retained:
                self._remember(outgoing)
            elif self._online:
                (self._answers if outgoing.qos else self._fleeting).append(outgoing)
        return True

    def _remember(self, outgoing: Outgoing) -> None:
        if outgoing.payload:
            self._last[outgoing.topic] = outgoing
        else:
            self._last.pop(outgoing.topic, None)
        self._owed[outgoing.topic] = self._unsent[outgoing.topic] = outgoing

    def purge(self) -> int:
        """As `Outbox.purge`; what was understood so far, and has not gone yet, is forgotten as well."""
        with self._lock:
            kept = [each for each in self._fleeting if each.schema != PartialTranscript.schema_name]
            self._fleeting.clear()
            self._fleeting.extend(kept)
        return self.outbox.purge()

    def repeat(self) -> None:
        """Send every retained value again, in the order in which each came first: somebody has forgotten them."""
        with self._lock:
            if self._online:
                self._unsent |= self._last

    def connected(self, birth: Outgoing) -> None:
        """A connection was made: `birth`, then every retained value is to be sent again, whoever has it already."""
        with self._lock:
            self._online = True
            erasures = {topic: owed for topic, owed in self._owed.items() if not owed.payload}
            self._unsent = {birth.topic: birth} | erasures | self._last

    def disconnected(self) -> None:
        """The connection is gone: what was on its way goes back into the outbox, and QoS 0 messages are forgotten."""
        with self._lock:
            self._online = False
            self._fleeting.clear()
            self._answers.clear()
        self.outbox.requeue()

    @property
    def idle(self) -> bool:
        """True if there is nothing to send now. What is on its way is not counted, nor a backlog that has to wait."""
        with self._lock:
            return not (self._unsent or self._answers or self._fleeting) and self.outbox.due_in_s() > 0

    def next_certain(self) -> Outgoing | None:
        """The next QoS 1 message: retained values first, then answers, then the outbox."""
        with self._lock:
            if self._unsent:
                return self._unsent.pop(next(iter(self._unsent)))
            if self._answers:
                return self._answers.popleft()
        return self.outbox.take()

    def acknowledge(self, outgoing: Outgoing) -> None:
        """End the flight of a message that is not in the outbox."""
        with self._lock:
            if self._owed.get(outgoing.topic) is outgoing:
                del self._owed[outgoing.topic]

    def set_aside(self, outgoing: Outgoing) -> None:
        """Do not send this retained value again; the next one of its topic is.

        A broker that hangs up on one erasure, since it is not allowed, does so on each of them: none is sent again.
        """
        self.acknowledge(outgoing)
        with self._lock:
            if not outgoing.payload:
                self._owed = {topic: owed for topic, owed in self._owed.items() if owed.payload}
            if self._last.get(outgoing.topic) is outgoing:
                del self._last[outgoing.topic]

    def owes(self, topics: Collection[str]) -> bool:
        """Whether a retained message on one of `topics` has not been answered yet; may be called from any thread."""
        with self._lock:
            return not self._owed.keys().isdisjoint(topics)

    def next_fleeting(self) -> Outgoing | None:
        """The oldest QoS 0 message."""
        with self._lock:
            return self._fleeting.popleft() if self._fleeting else None
