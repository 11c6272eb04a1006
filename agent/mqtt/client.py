"""Messages to an MQTT broker: MQTT 5, or 3.1.1 where the broker does not speak MQTT 5.

send() ─┬▶ Outbox ─────────┬▶ thread `mqtt` ─▶ Connection (paho) ─▶ broker
        └▶ OutgoingQueue ──┘                          │
             ▲ acknowledge: leaves the outbox ◀── Ack ◀┘
"""

import contextlib
import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final, Literal

from agent.channel import Window
from agent.config.layers import state_dir
from agent.config.settings import MqttSettings, Settings
from agent.errors import SinkError
from agent.messages import Message, PartialTranscript, Status
from agent.messages.telemetry import Mqtt
from agent.mqtt.connection import Ack, Cause, Connection, LinkDown, PacketTooLarge, tls_context
from agent.mqtt.delivery import NOTHING, Inbox, Outgoing, PublishResult, Replay, SeqRange, publish_result
from agent.mqtt.link_report import LinkReporter
from agent.mqtt.outbox import create_outbox
from agent.mqtt.outbox_queue import Outbox
from agent.mqtt.reconnect import Approach, Backoff, PoisonMessageDetector, Subscriptions
from agent.worker import Worker

log = logging.getLogger(__name__)

WILL_DELAY_S: Final = 10
"""A device that is back by then was never announced as offline (MQTT 5)."""
PROGRESS_S = 45.0
"""Longer than the outbox waits before it sends a backlog, 30 s at most."""
_TICK_S: Final = 1.0
_SHORT_TICK_S: Final = 0.01
_FAREWELL_S: Final = 0.5
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 10.0
_ANSWER_TO_A_GUESS_S: Final = 3.0
"""A broker for 3.1.1 only may take MQTT 5 for an unfinished message and never answer: amqtt does."""
_TRANSIENT: Final = 64
"""Answers and QoS 0 messages that may wait for the thread; the oldest go first. They are useless later."""


class OutgoingQueue:
    """Keeps the messages that are not for the outbox: retained ones, answers, and those of QoS 0.

    The last value of each retained topic is sent on every connection. An empty one, which makes the broker forget a
    topic, is sent until the broker has answered it. Answers (QoS 1, not persistent) and QoS 0 messages from before a
    connection are dropped: the receiver has given up by then.

    `put`, `drop_partials`, `repeat` and `owes` are called from any thread; the rest from the thread `mqtt`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retained: dict[str, Outgoing] = {}
        self._unsent: dict[str, Outgoing] = {}
        # Topics whose last value the broker has not answered. A value on its way still counts: the link may break.
        self._owed: set[str] = set()
        self._transient: deque[Outgoing] = deque(maxlen=_TRANSIENT)

    def put(self, outgoing: Outgoing) -> None:
        """Accept a message."""
        with self._lock:
            if outgoing.retained:
                self._retained[outgoing.topic] = self._unsent[outgoing.topic] = outgoing
                self._owed.add(outgoing.topic)
            else:
                self._transient.append(outgoing)

    def drop_partials(self) -> None:
        """Drop the words of an unfinished utterance that have not gone yet."""
        with self._lock:
            kept = [each for each in self._transient if each.schema != PartialTranscript.schema_name]
            self._transient = deque(kept, _TRANSIENT)

    def repeat(self) -> None:
        """Send every retained value again, in the order in which each came first."""
        with self._lock:
            self._unsent |= self._retained

    def owes(self, topics: Collection[str]) -> bool:
        """Whether a retained message on one of `topics` has not been answered yet."""
        with self._lock:
            return not self._owed.isdisjoint(topics)

    def connected(self, birth: Outgoing) -> None:
        """Begin a new connection: `birth`, then every retained value, then messages from now on."""
        with self._lock:
            self._unsent = {birth.topic: birth} | self._retained
            self._transient.clear()

    @property
    def idle(self) -> bool:
        """True if there is no message to send now. Messages on their way do not count."""
        with self._lock:
            return not (self._unsent or self._transient)

    def take(self) -> Outgoing | None:
        """Hand out the next message: retained values first."""
        with self._lock:
            if self._unsent:
                return self._unsent.pop(next(iter(self._unsent)))
            return self._transient.popleft() if self._transient else None

    def acknowledge(self, outgoing: Outgoing) -> None:
        """Note that the broker has answered a message."""
        with self._lock:
            if self._retained.get(outgoing.topic) is outgoing:
                self._owed.discard(outgoing.topic)
                if not outgoing.payload:
                    del self._retained[outgoing.topic]

    def set_aside(self, outgoing: Outgoing) -> None:
        """Do not send this message again; of its topic, the next value is sent.

        If the broker hangs up on one erasure because it forbids that, it would do so on each: drop all of them.
        """
        with self._lock:
            for topic, value in tuple(self._retained.items()):
                if value is outgoing or not (value.payload or outgoing.payload):
                    del self._retained[topic]
                    self._owed.discard(topic)


class MqttClient:
    """Delivers messages to a broker, and keeps trying for as long as it takes.

    Transcripts and other QoS 1 messages wait in the outbox until the broker has acknowledged them. The thread, called
    `mqtt`, starts to connect at once; it ends the process (`on_failure`) only for a bug. On every connection it
    subscribes to the topics of `inbox`.

    Raises:
        ConfigError: a certificate file cannot be used.
    """

    def __init__(
        self,
        settings: MqttSettings,
        device_id: str,
        outbox: Outbox,
        on_failure: Callable[[Worker], None],
        *,
        backoff: Backoff | None = None,
        will_delay_s: int = WILL_DELAY_S,
        inbox: Inbox = NOTHING,
    ) -> None:
        if settings.tls.enabled:
            tls_context(settings.tls)  # better a clear error now than a line in the log every few minutes
        self._settings = settings
        self._device_id = device_id
        self._outbox = outbox
        self._queue = OutgoingQueue()
        chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._backoff = backoff or Backoff(chance, ceiling_s=settings.reconnect_max_s)
        self._approach = Approach(settings.protocol)
        self._will_delay_s = will_delay_s
        self._inbox = inbox
        self._subscriptions = Subscriptions(inbox.filters)
        self._report = LinkReporter(settings, device_id)
        self.connected = False
        """The broker has accepted this device and the connection holds, as far as is known; any thread may ask."""
        self._connected_s = 0.0
        self._connections = 0
        self._progress_s = float("-inf")
        self._ack_ms = Window()
        self._ack_ms_p95: float | None = None
        self._in_flight: dict[int, tuple[Outgoing, float]] = {}
        """By packet id: a message that the broker has not acknowledged, and when it was sent (monotonic)."""
        self._poison = PoisonMessageDetector()
        self._stopping = threading.Event()
        self._deadline_s = float("inf")
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._worker = Worker("mqtt", self._run, on_failure)
        self._worker.start()

    def send(self, message: Message) -> None:
        """Accept a message for delivery; never waits for the network. A message after `close` is lost."""
        self.post(Outgoing.of(self._device_id, message, time.monotonic()))

    def post(self, outgoing: Outgoing) -> None:
        """Accept a message to any topic, as `send` does."""
        if not outgoing.qos or outgoing.retained or not outgoing.persistent:
            self._queue.put(outgoing)
        elif not self._outbox.put(outgoing):
            self._report.overflow()
        self._wake()

    def repeat(self) -> None:
        """Send every retained value again, if there is a connection: a subscriber has forgotten them."""
        self._queue.repeat()
        self._wake()

    def has_taken(self, topics: Collection[str]) -> bool:
        """Whether the broker has answered the last retained value of each of `topics`; it may have refused it."""
        return not self._queue.owes(topics)

    def purge(self) -> int:
        """Forget messages that wait and are not on their way; return how many of the outbox those were."""
        self._queue.drop_partials()
        return self._outbox.purge()

    def replay(self, wanted: SeqRange) -> Replay:
        """Send delivered transcripts again, as far as they are still here."""
        replay = self._outbox.replay(wanted)
        self._wake()
        return replay

    @property
    def delivering(self) -> bool:
        """Whether messages wait, and the broker has accepted this device or a message not long ago."""
        return self._outbox.pending > 0 and time.monotonic() - self._progress_s < PROGRESS_S

    @property
    def conditions(self) -> tuple[str, ...]:
        """Troubles with the broker, as codes for `health`; may be read from any thread."""
        too_large = ("mqtt_message_too_large",) if self._subscriptions.trouble(time.monotonic()) else ()
        return (*self._report.conditions, *too_large)

    @property
    def stats(self) -> Mqtt:
        """The `mqtt` part of telemetry; may be read from any thread."""
        p95_ms = self._ack_ms_p95
        return Mqtt(
            outbox_n=self._outbox.pending,
            outbox_mb=round(self._outbox.size_bytes / 2**20, 2),
            dropped=self._outbox.dropped,
            reconnects=max(0, self._connections - 1),
            puback_ms_p95=None if p95_ms is None else round(p95_ms),
        )

    def close(self, timeout_s: float) -> int:
        """Deliver waiting messages, say `offline` and disconnect, within `timeout_s`; return how many are lost by it.

        Where there is no connection, one more attempt is made if a message waits.
        """
        self._deadline_s = time.monotonic() + timeout_s
        self._stopping.set()
        self._wake()
        if not self._worker.join(timeout_s + _FAREWELL_S + _TICK_S):
            # A resolver or a TLS handshake without an answer can hold it for so long, and cannot be interrupted.
            log.warning(f"mqtt: {self._settings.host} does not answer; leaving without saying goodbye")
        return self._outbox.close()

    def _wake(self) -> None:
        # Full: the thread will wake up anyway. Closed: it has ended.
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    # From here on, everything runs in the thread `mqtt`: connect, serve, and wait until it is time to try again.

    def _run(self) -> None:
        with self._bell, self._ear:
            while not self._stopping.is_set():
                self._attempt()
            if self._outbox.pending and time.monotonic() < self._deadline_s:
                self._attempt()

    def _attempt(self) -> None:
        connection = Connection(
            self._settings,
            self._device_id,
            self._approach.version,
            replace(self._status("offline"), retained=self._approach.retained),
            self._will_delay_s,
            self._inbox,
            clean=self._subscriptions.trouble(time.monotonic()),
        )
        try:
            self._open(connection)
            self._serve(connection)
        except LinkDown as down:
            connection.drop()
            self._lost(down, connection)
        else:
            connection.close()
            self._disconnected()

    def _open(self, connection: Connection) -> None:
        connection.open(max(_FAREWELL_S, min(_CONNECT_S, self._deadline_s - time.monotonic())))
        patience_s = _ANSWER_TO_A_GUESS_S if self._approach.guessing else _ANSWER_S
        limit_s = time.monotonic() + patience_s
        while not connection.accepted:
            remaining_s = min(limit_s, self._deadline_s) - time.monotonic()
            if remaining_s <= 0 or (self._stopping.is_set() and not self._outbox.pending):
                raise LinkDown(Cause.SILENT, f"no answer within {patience_s:.0f} s")
            connection.step(self._ear, remaining_s)

    def _serve(self, connection: Connection) -> None:
        """Publish until the connection breaks (`LinkDown`), or `close` was called and everything is delivered."""
        self._connections += 1
        self._connected_s = self._progress_s = time.monotonic()
        self._queue.connected(self._status("online"))
        self.connected = True
        self._poison.connected(self._connected_s)
        while not self._finished:
            connection.subscribe(self._subscriptions.wanted(time.monotonic()))
            self._feed(connection)
            # Do not wait beyond the moment when the outbox has a message again.
            due_s = _TICK_S if connection.congested or not self._has_room(connection) else self._outbox.due_in_s()
            self._settle(connection.step(self._ear, max(_SHORT_TICK_S, min(_TICK_S, due_s))), connection)
            self._report.deaf(connection.refused_filters)
        self._publish(connection, self._status("offline"))  # a disconnect in good order makes the broker drop the will
        limit_s = max(self._deadline_s, time.monotonic() + _FAREWELL_S)
        while self._in_flight and time.monotonic() < limit_s:
            self._settle(connection.step(None, limit_s - time.monotonic()), connection)

    @property
    def _finished(self) -> bool:
        if not self._stopping.is_set():
            return False
        drained = self._queue.idle and self._outbox.due_in_s() > 0 and not self._in_flight
        return drained or time.monotonic() >= self._deadline_s

    def _lost(self, down: LinkDown, connection: Connection) -> None:
        """Draw conclusions from the end of a connection; then wait until it is time for the next attempt."""
        now_s = time.monotonic()
        connected_s = now_s - self._connected_s if self.connected else 0.0
        suspect = None
        if connection.oversized:
            # Leave out the filters that bring messages that are too large.
            if filters := self._subscriptions.too_large(connection.oversized, now_s):
                self._report.left_out(filters)
        elif down.cause is not Cause.TAKEN_OVER:
            suspect = self._find_poison(now_s)
        if self.connected and self._poison.unwelcome:
            down = LinkDown(Cause.GREETING, down.reason)
        self._disconnected()
        if self._approach.fall_back(down.cause):
            log.debug(f"mqtt: asking less of the broker ({down.reason})")
            return
        wait_s = self._backoff.wait_s(down.cause, connected_s)
        self._report.down(down, self._outbox.pending, wait_s, connected_s=connected_s, suspect=suspect)
        self._stopping.wait(wait_s)

    def _find_poison(self, now_s: float) -> Outgoing | None:
        """Set the message aside on which the broker hangs up; return it while that is only a suspicion."""
        in_flight = tuple(self._in_flight.values())
        # A message of the outbox is told by its key. Read again from disk, its other fields differ a little.
        sent_s: dict[object, float] = {
            message if message.key is None else message.key: at_s for message, at_s in in_flight
        }
        is_poison = self._poison.lost(sent_s, now_s)
        alone = in_flight[0][0] if in_flight else None
        if alone is None or not is_poison:
            return alone if self._poison.suspected else None
        self._report.set_aside(alone)
        self._queue.set_aside(alone)
        self._outbox.acknowledge(alone, PublishResult.REFUSED)
        return None

    def _disconnected(self) -> None:
        self.connected = False
        self._in_flight.clear()
        self._outbox.requeue()

    def _has_room(self, connection: Connection) -> bool:
        """Whether one more message may be on its way."""
        return len(self._in_flight) < self._poison.window(connection.window, time.monotonic())

    def _feed(self, connection: Connection) -> None:
        """Publish as many messages as the window and the network have room for."""
        while self._has_room(connection) and not connection.congested:
            if (message := self._queue.take() or self._outbox.take()) is None:
                break
            self._publish(connection, message)

    def _publish(self, connection: Connection, message: Outgoing) -> None:
        now_s = time.monotonic()
        expiry_s = message.remaining_s(now_s)
        if expiry_s is not None and expiry_s <= 0:
            self._done(message, PublishResult.EXPIRED)
            return
        try:
            packet_id = connection.publish(message, expiry_s)
        except PacketTooLarge as error:
            self._report.too_large(message, error.size_bytes, error.limit_bytes)
            self._done(message, PublishResult.REFUSED)
            return
        if message.qos:
            self._in_flight[packet_id] = message, now_s

    def _settle(self, acks: tuple[Ack, ...], connection: Connection) -> None:
        for ack in acks:
            # paho acknowledges QoS 0 messages too, as soon as they are written: those are not in flight.
            if (sent := self._in_flight.pop(ack.packet_id, None)) is None:
                continue
            message, sent_s = sent
            if self._poison.answered():
                self._report.up(connection.version, self._outbox.pending, retained=connection.retained)
            self._ack_ms.add((time.monotonic() - sent_s) * 1_000)
            self._ack_ms_p95 = self._ack_ms.p95()
            if ack.refusal is None:
                self._progress_s = time.monotonic()
            else:
                self._report.refused(message, ack.refusal)
            self._done(message, publish_result(ack.code))

    def _done(self, message: Outgoing, result: PublishResult) -> None:
        if message.key is None:
            self._poison.acknowledged(message)
            self._queue.acknowledge(message)
        else:
            self._poison.acknowledged(message.key)
            self._outbox.acknowledge(message, result)

    def _status(self, state: Literal["online", "offline"]) -> Outgoing:
        return Outgoing.of(self._device_id, Status(state=state), time.monotonic())


def open_outbox(settings: Settings, on_failure: Callable[[Worker], None]) -> Outbox | None:
    """Open the outbox that keeps messages until the broker has them; None without a broker.

    Where words must not leave the device, earlier ones are deleted before there is a connection.
    """
    if not settings.mqtt.enabled:
        return None
    words = settings.publish.privacy == "full"
    outbox = create_outbox(settings.mqtt.outbox, state_dir(settings), on_failure, replayable=words)
    if not words:
        outbox.purge()
    return outbox


def undelivered(lost: int, kept: int, broker: str, *, connected: bool) -> SinkError:
    """The error for messages that the broker does not have at the end: `lost` ones, else `kept` ones."""
    count = lost or kept
    messages = "1 message" if count == 1 else f"{count} messages"
    fate = "" if lost else ", and wait in the state folder for the next start"
    why = f"{broker} took none of them for {PROGRESS_S:.0f} s" if connected else f"is there a broker at {broker}?"
    return SinkError(f"{messages} could not be delivered{fate}: {why}")
