from agent.messages import Health, Status
from agent.mqtt.delivery import Outgoing
from tests.messages import transcript


def test_a_message_carries_its_delivery_with_it() -> None:
    """All that is needed to publish a message later, from a disk even, is in it."""
    outgoing = Outgoing.of("pi-1", transcript(7), now_s=100.0)
    assert outgoing.topic == "edgescribe/v1/pi-1/transcript"
    assert (outgoing.qos, outgoing.retained, outgoing.expiry_s) == (1, False, 86_400)
    assert (outgoing.content_type, outgoing.schema) == ("application/json", "transcript/1")
    assert outgoing.payload == transcript(7).payload()


def test_bare_words_are_declared_as_text() -> None:
    """A consumer that looks at the content type does not try to parse `online` as JSON."""
    assert Outgoing.of("pi-1", Status(state="online"), 0.0).content_type == "text/plain"


def test_waiting_uses_up_the_expiry() -> None:
    """A transcript that waited an hour for the broker has an hour less to live there."""
    outgoing = Outgoing.of("pi-1", transcript(1), now_s=1_000.0)
    assert outgoing.remaining_s(1_000.0) == 86_400
    assert outgoing.remaining_s(4_600.0) == 82_800
    assert outgoing.remaining_s(1_000.0 + 86_400) == 0


def test_what_never_expires_has_no_remaining_time() -> None:
    """Retained state is good until it is replaced."""
    assert Outgoing.of("pi-1", Health(problem="OFF"), 0.0).remaining_s(1e9) is None
