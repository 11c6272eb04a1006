import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.messages import Health, Message, PartialTranscript, Status, Vad
from agent.mqtt.client import OutgoingQueue, open_outbox
from agent.mqtt.delivery import Outgoing
from agent.worker import Worker
from tests.messages import NOON, info, transcript

BIRTH = Outgoing.of("pi-1", Status(state="online"), 0.0)


def put(queue: OutgoingQueue, *messages: Message) -> None:
    """Post messages as the sink does."""
    for message in messages:
        queue.put(Outgoing.of("pi-1", message, time.monotonic()))


def everything(queue: OutgoingQueue) -> list[Outgoing]:
    """All that is to be acknowledged, in order."""
    return list(iter(queue.take, None))


def payloads(queue: OutgoingQueue) -> list[bytes]:
    """Payloads of everything that is to be acknowledged, in order."""
    return [item.payload for item in everything(queue)]


def test_a_connection_begins_with_the_birth_then_the_state() -> None:
    """A subscriber sees `online` before `info`."""
    queue = OutgoingQueue()
    put(queue, info(), Health(problem="OFF"))
    queue.connected(BIRTH)
    assert payloads(queue) == [b"online", info().payload(), Health(problem="OFF").payload()]


def test_only_the_last_value_of_a_retained_kind_is_sent() -> None:
    """Stale state is of no use to anybody."""
    queue = OutgoingQueue()
    put(queue, Health(problem="ON", codes=("mic_absent",)), Health(problem="OFF"))
    queue.connected(BIRTH)
    assert payloads(queue) == [b"online", Health(problem="OFF").payload()]


def test_every_connection_gets_the_state_again() -> None:
    """A broker that was restarted without its memory knows everything again."""
    queue = OutgoingQueue()
    put(queue, info())
    for _ in range(2):
        queue.connected(BIRTH)
        assert payloads(queue) == [b"online", info().payload()]


def test_qos_0_is_forgotten_without_a_connection() -> None:
    """Nobody wants to know an hour later that somebody was speaking."""
    queue = OutgoingQueue()
    put(queue, Vad(state="ON"))
    queue.connected(BIRTH)
    assert everything(queue) == [BIRTH]
    put(queue, Vad(state="OFF"))
    item = queue.take()
    assert item
    assert item.payload == b"OFF"
    put(queue, Vad(state="ON"))
    queue.connected(BIRTH)
    assert everything(queue) == [BIRTH]


def test_it_is_idle_when_everything_was_handed_out() -> None:
    """A sink that is to stop sends all of it first."""
    queue = OutgoingQueue()
    idle = [queue.idle]
    put(queue, info())
    idle.append(queue.idle)
    queue.take()
    idle.append(queue.idle)
    assert idle == [True, False, True]


def erasure(topic: str) -> Outgoing:
    """An empty retained message: the broker forgets the topic."""
    return Outgoing(topic, b"", 1, retained=True, content_type="text/plain", schema="x/1")


def test_an_erasure_is_sent_until_it_is_answered() -> None:
    """What was announced is withdrawn though the broker was away, or the link broke; then not at every connection."""
    queue = OutgoingQueue()
    queue.put(replace(erasure("config"), payload=b"{}"))
    queue.put(erasure("config"))
    for _ in range(2):
        queue.connected(BIRTH)
        birth, withdrawal = everything(queue)
        assert (birth, withdrawal.payload) == (BIRTH, b"")
        queue.connected(BIRTH)
    queue.acknowledge(everything(queue)[1])
    queue.connected(BIRTH)
    assert payloads(queue) == [BIRTH.payload]


def test_the_answer_to_an_older_message_of_a_topic_says_nothing_of_the_last_one() -> None:
    """Announced again and withdrawn again meanwhile: the second withdrawal is not answered yet."""
    queue = OutgoingQueue()
    first, second = erasure("config"), erasure("config")
    queue.put(first)
    queue.put(second)
    queue.acknowledge(first)
    assert queue.owes({"config"})
    assert not queue.owes({"state"})
    queue.acknowledge(second)
    assert not queue.owes({"config"})


def test_an_erasure_on_which_the_broker_hangs_up_is_given_up() -> None:
    """It may not write there, and MQTT 3.1.1 has no other way to say so."""
    queue = OutgoingQueue()
    queue.put(withdrawal := erasure("config"))
    queue.set_aside(withdrawal)
    queue.connected(BIRTH)
    assert everything(queue) == [BIRTH]
    assert not queue.owes({"config"})


def test_what_was_set_aside_makes_way_for_the_next_value_only() -> None:
    """A broker that cannot stand an announcement is spared it, until there is another."""
    queue = OutgoingQueue()
    old, new = replace(erasure("config"), payload=b"{1}"), replace(erasure("config"), payload=b"{2}")
    queue.put(old)
    queue.set_aside(old)
    queue.connected(BIRTH)
    assert payloads(queue) == [BIRTH.payload]
    queue.put(new)
    queue.set_aside(old)
    queue.connected(BIRTH)
    assert payloads(queue) == [BIRTH.payload, b"{2}"]


def test_answers_wait_for_no_connection() -> None:
    """Who asked has given up by then; nothing of them reaches the outbox, or a disk."""
    queue = OutgoingQueue()
    answer = replace(erasure("reply"), payload=b"{}", retained=False, persistent=False)
    queue.put(answer)
    queue.connected(BIRTH)
    queue.put(answer)
    assert [item.topic for item in everything(queue)] == [BIRTH.topic, "reply"]
    queue.put(answer)
    queue.connected(BIRTH)
    assert [item.topic for item in everything(queue)] == [BIRTH.topic]


def test_what_is_retained_can_be_repeated_in_the_order_in_which_it_came_first() -> None:
    """Home Assistant was restarted: discovery goes before state, however often state has changed since."""
    queue = OutgoingQueue()
    queue.connected(BIRTH)
    for topic in ("config", "state", "config"):
        queue.put(replace(erasure(topic), payload=b"{}"))
    everything(queue)
    queue.repeat()
    assert [item.topic for item in everything(queue)] == ["config", "state"]


def test_a_purge_takes_partial_words_and_nothing_else() -> None:
    """That speech has ended is still told."""
    queue = OutgoingQueue()
    queue.connected(BIRTH)
    partial = PartialTranscript(id="01A", ts=NOON, duration_s=1.0, text="turn on the", lang="en")
    put(queue, partial, Vad(state="OFF"))
    queue.drop_partials()
    assert payloads(queue) == [b"online", b"OFF"]


def test_a_broker_that_hangs_up_on_one_erasure_is_sent_no_other() -> None:
    """Each would cost several connections."""
    queue = OutgoingQueue()
    for name in ("status", "info", "state"):
        queue.put(erasure(name))
    first = everything(queue)[0]
    queue.set_aside(first)
    queue.connected(BIRTH)
    assert everything(queue) == [BIRTH]


@pytest.mark.parametrize(("privacy", "left"), [("full", 2), ("keywords", 0), ("off", 0)])
def test_where_words_stay_on_the_device_so_do_those_of_before(tmp_path: Path, privacy: str, left: int) -> None:
    """They are gone before there is a link by which they could leave."""
    failed: list[Worker] = []

    def settings(privacy: str) -> Settings:
        return Settings.model_validate({"state_dir": tmp_path, "publish": {"privacy": privacy, "keywords": ["heater"]}})

    before = open_outbox(settings("full"), failed.append)
    assert before
    for _ in range(2):
        before.put(Outgoing.of("pi-1", transcript(before.next_seq()), 0.0))
    before.close()
    after = open_outbox(settings(privacy), failed.append)
    assert after
    assert after.pending == left
    after.close()
    assert failed == []
