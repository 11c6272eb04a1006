import time
from dataclasses import replace

from agent.messages import Health, Message, Status, Vad
from agent.messages.partial import PartialTranscript
from agent.mqtt.delivery import Fate, Outgoing
from agent.mqtt.outbox_memory import MemoryOutbox
from agent.mqtt.outgoing import Item, Mailbox
from tests.messages import NOON, info, transcript

BIRTH = Outgoing.of("pi-1", Status(state="online"), 0.0)


def put(mailbox: Mailbox, *messages: Message) -> None:
    """Post messages as the sink does."""
    for message in messages:
        mailbox.put(Outgoing.of("pi-1", message, time.monotonic()))


def everything(mailbox: Mailbox) -> list[Item]:
    """All that is to be acknowledged, in order."""
    return list(iter(mailbox.next_certain, None))


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


def erasure(topic: str) -> Outgoing:
    """An empty retained message: the broker forgets the topic."""
    return Outgoing(topic, b"", 1, retained=True, content_type="text/plain", schema="x/1")


def test_an_erasure_is_sent_until_it_is_answered() -> None:
    """What was announced is withdrawn though the broker was away, or the link broke; then not at every connection."""
    mailbox = Mailbox(MemoryOutbox(3))
    mailbox.put(replace(erasure("config"), payload=b"{}"))
    mailbox.put(erasure("config"))
    for _ in range(2):
        mailbox.connected(BIRTH)
        birth, withdrawal = everything(mailbox)
        assert (birth.outgoing, withdrawal.outgoing.payload) == (BIRTH, b"")
        mailbox.disconnected()
    mailbox.connected(BIRTH)
    mailbox.settled(everything(mailbox)[1].outgoing)
    mailbox.disconnected()
    mailbox.connected(BIRTH)
    assert [item.outgoing.payload for item in everything(mailbox)] == [BIRTH.payload]


def test_the_answer_to_an_older_message_of_a_topic_says_nothing_of_the_last_one() -> None:
    """Announced again and withdrawn again meanwhile: the second withdrawal is not answered yet."""
    mailbox = Mailbox(MemoryOutbox(3))
    first, second = erasure("config"), erasure("config")
    mailbox.put(first)
    mailbox.put(second)
    mailbox.settled(first)
    assert mailbox.owes({"config"})
    assert not mailbox.owes({"state"})
    mailbox.settled(second)
    assert not mailbox.owes({"config"})


def test_an_erasure_on_which_the_broker_hangs_up_is_given_up() -> None:
    """It may not write there, and MQTT 3.1.1 has no other way to say so."""
    mailbox = Mailbox(MemoryOutbox(3))
    mailbox.put(withdrawal := erasure("config"))
    mailbox.set_aside(withdrawal)
    mailbox.connected(BIRTH)
    assert [item.outgoing for item in everything(mailbox)] == [BIRTH]
    assert not mailbox.owes({"config"})


def test_what_was_set_aside_makes_way_for_the_next_value_only() -> None:
    """A broker that cannot stand an announcement is spared it, until there is another."""
    mailbox = Mailbox(MemoryOutbox(3))
    old, new = replace(erasure("config"), payload=b"{1}"), replace(erasure("config"), payload=b"{2}")
    mailbox.put(old)
    mailbox.set_aside(old)
    mailbox.connected(BIRTH)
    assert [item.outgoing.payload for item in everything(mailbox)] == [BIRTH.payload]
    mailbox.put(new)
    mailbox.set_aside(old)
    mailbox.connected(BIRTH)
    assert [item.outgoing.payload for item in everything(mailbox)] == [BIRTH.payload, b"{2}"]


def test_answers_wait_for_no_connection() -> None:
    """Who asked has given up by then; nothing of them reaches the outbox, or a disk."""
    mailbox = Mailbox(MemoryOutbox(3))
    answer = Outgoing("reply", b"{}", 1, retained=False, content_type="application/json", schema="reply/1", kept=False)
    mailbox.put(answer)
    mailbox.connected(BIRTH)
    mailbox.put(answer)
    assert [item.outgoing.topic for item in everything(mailbox)] == [BIRTH.topic, "reply"]
    mailbox.put(answer)
    mailbox.disconnected()
    mailbox.connected(BIRTH)
    assert [item.outgoing.topic for item in everything(mailbox)] == [BIRTH.topic]


def test_what_is_retained_can_be_repeated_in_the_order_in_which_it_came_first() -> None:
    """Home Assistant was restarted: discovery goes before state, however often state has changed since."""
    mailbox = Mailbox(MemoryOutbox(3))
    mailbox.connected(BIRTH)
    for topic in ("config", "state", "config"):
        mailbox.put(replace(erasure(topic), payload=b"{}"))
    everything(mailbox)
    mailbox.repeat()
    assert [item.outgoing.topic for item in everything(mailbox)] == ["config", "state"]


def test_a_purge_takes_every_word_and_nothing_else() -> None:
    """What waits in the outbox, and what is understood so far; that somebody has stopped speaking is still told."""
    mailbox = Mailbox(MemoryOutbox(10))
    mailbox.connected(BIRTH)
    partial = PartialTranscript(id="01A", ts=NOON, duration_s=1.0, text="turn on the", lang="en")
    put(mailbox, transcript(1), partial, Vad(state="OFF"))
    assert mailbox.purge() == 1
    assert drained(mailbox) == [b"online"]
    item = mailbox.next_fleeting()
    assert item
    assert item.outgoing.payload == b"OFF"
    assert mailbox.next_fleeting() is None


def test_a_broker_that_hangs_up_on_one_erasure_is_sent_no_other() -> None:
    """Each would cost several connections."""
    mailbox = Mailbox(MemoryOutbox(3))
    for name in ("status", "info", "state"):
        mailbox.put(erasure(name))
    first = everything(mailbox)[0].outgoing
    mailbox.set_aside(first)
    mailbox.connected(BIRTH)
    assert [item.outgoing for item in everything(mailbox)] == [BIRTH]
