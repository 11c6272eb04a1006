import time

from agent.delivery import Fate, Outgoing
from agent.outbox.memory import MemoryOutbox
from agent.sinks.mailbox import Mailbox
from agent.wire import Health, Message, Status, Vad
from tests.messages import info, transcript

BIRTH = Outgoing.of("pi-1", Status(state="online"), 0.0)


def put(mailbox: Mailbox, *messages: Message) -> None:
    """Post messages as the sink does."""
    for message in messages:
        mailbox.put(Outgoing.of("pi-1", message, time.monotonic()))


def drained(mailbox: Mailbox) -> list[bytes]:
    """Payloads of everything that is to be acknowledged, in order."""
    payloads = []
    while item := mailbox.next_certain():
        payloads.append(item.outgoing.payload)
    return payloads


def test_a_connection_begins_with_the_birth_then_the_state_then_the_news() -> None:
    """Whoever sees a transcript has seen `online` and `info` before it."""
    mailbox = Mailbox(MemoryOutbox(10))
    put(mailbox, transcript(1), info(), Health(problem="OFF"))
    mailbox.connected(BIRTH)
    assert drained(mailbox) == [
        b"online",
        info().payload(),
        Health(problem="OFF").payload(),
        transcript(1).payload(),
    ]


def test_only_the_last_value_of_a_retained_kind_is_sent() -> None:
    """Stale state is of no use to anybody."""
    mailbox = Mailbox(MemoryOutbox(10))
    put(mailbox, Health(problem="ON", codes=("mic_absent",)), Health(problem="OFF"))
    mailbox.connected(BIRTH)
    assert drained(mailbox) == [b"online", Health(problem="OFF").payload()]


def test_every_connection_gets_the_state_again() -> None:
    """A broker that was restarted without its memory knows everything again."""
    mailbox = Mailbox(MemoryOutbox(10))
    put(mailbox, info())
    for _ in range(2):
        mailbox.connected(BIRTH)
        assert drained(mailbox) == [b"online", info().payload()]
        mailbox.disconnected()


def test_qos_0_is_forgotten_without_a_connection() -> None:
    """Nobody wants to know an hour later that somebody was speaking."""
    mailbox = Mailbox(MemoryOutbox(10))
    put(mailbox, Vad(state="ON"))
    mailbox.connected(BIRTH)
    assert mailbox.next_fleeting() is None
    put(mailbox, Vad(state="OFF"))
    item = mailbox.next_fleeting()
    assert item
    assert item.outgoing.payload == b"OFF"
    put(mailbox, Vad(state="ON"))
    mailbox.disconnected()
    assert mailbox.next_fleeting() is None


def test_a_full_outbox_shows_in_the_answer() -> None:
    """The caller learns that an older transcript had to go; state and QoS 0 cannot displace one."""
    mailbox = Mailbox(MemoryOutbox(1))
    assert mailbox.put(Outgoing.of("pi-1", transcript(1), 0.0))
    assert mailbox.put(Outgoing.of("pi-1", info(), 0.0))
    assert mailbox.put(Outgoing.of("pi-1", Vad(state="ON"), 0.0))
    assert not mailbox.put(Outgoing.of("pi-1", transcript(2), 0.0))


def test_it_is_idle_when_everything_was_handed_out_or_has_to_wait() -> None:
    """A sink that is to stop waits for live words, and leaves the rest of a backlog for the next time."""
    mailbox = Mailbox(MemoryOutbox(10))
    idle = [mailbox.idle]
    put(mailbox, transcript(1))
    idle.append(mailbox.idle)
    item = mailbox.next_certain()
    assert item
    assert item.key is not None
    idle.append(mailbox.idle)
    mailbox.outbox.settle(item.key, Fate.BUSY)
    idle.append(mailbox.idle)
    assert idle == [True, False, True, True]
    assert mailbox.outbox.pending == 1
