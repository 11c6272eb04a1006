import logging
from dataclasses import replace

import pytest
from pydantic import SecretStr

from agent.config.settings import MqttSettings
from agent.messages import Reply
from agent.mqtt.connection import Cause, LinkDown
from agent.mqtt.delivery import Outgoing
from agent.mqtt.link_report import LinkReporter
from tests.messages import transcript

SETTINGS = MqttSettings(host="hub.local", password=SecretStr("s3cret"))
WORDS = Outgoing.of("pi-1", transcript(1), 0.0)


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_an_outage_is_one_line_however_often_it_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Losing the broker and not finding it again is one change of state, with one line."""
    report = LinkReporter(SETTINGS, "pi-1")
    report.down(LinkDown(Cause.UNREACHABLE, "Connection refused"), 3, 0.7)
    for cause in (Cause.UNREACHABLE, Cause.LOST, Cause.SILENT) * 5:
        report.down(LinkDown(cause, "No route to host"), 4, 20.0)
    assert [line.getMessage() for line in caplog.records] == [
        "mqtt: no broker at hub.local:1883 (Connection refused); 3 messages wait, retrying"
    ]


def test_the_next_outage_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """After a connection, news is news."""
    report = LinkReporter(SETTINGS, "pi-1")
    for _ in range(2):
        report.down(LinkDown(Cause.LOST, "it hung up"), 0, 1.0)
        report.up("5", 1)
    assert [line.levelname for line in caplog.records] == ["WARNING", "INFO", "WARNING", "INFO"]
    assert caplog.records[1].getMessage() == "mqtt: connected to hub.local:1883 (MQTT 5); 1 message waits"


def test_a_different_trouble_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """When the broker comes back and refuses us, the reason has changed and the remedy too."""
    report = LinkReporter(SETTINGS, "pi-1")
    report.down(LinkDown(Cause.UNREACHABLE, "Connection refused"), 0, 1.0)
    report.down(LinkDown(Cause.CREDENTIALS, "Not authorized"), 0, 600.0)
    assert caplog.records[1].getMessage() == (
        "mqtt: hub.local:1883 refuses the user 'pi-1' (Not authorized): check mqtt.username and mqtt.password, "
        "trying again in 10 min"
    )


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_line_that_names_the_broker_and_no_secret(
    cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with the address in it, and never the password."""
    LinkReporter(SETTINGS, "pi-1").down(LinkDown(cause, "why"), 0, 1.0)
    (text,) = [line.getMessage() for line in caplog.records]
    assert "hub.local:1883" in text
    assert "\n" not in text
    assert "s3cret" not in text


def test_a_connection_that_never_holds_is_suspected_of_a_namesake(caplog: pytest.LogCaptureFixture) -> None:
    """From the third short connection on the question is asked; an hour's connection in between settles it."""
    report = LinkReporter(SETTINGS, "pi-1")
    for connected_s in (1.0, 1.0, 3_600.0, 1.0, 1.0, 1.0):
        report.up("5", 0)
        report.down(LinkDown(Cause.LOST, "it hung up"), 0, 1.0, connected_s=connected_s)
    asked = ["does another client use the id 'pi-1'?" in line.getMessage() for line in caplog.records]
    assert asked == [False] * 11 + [True]


def test_a_message_on_which_the_broker_hangs_up_is_named_in_place_of_a_namesake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who goes looking for a second device of that name would look for ever."""
    report = LinkReporter(SETTINGS, "pi-1")
    words = Outgoing.of("pi-1", transcript(1), 0.0)
    for _ in range(5):
        report.up("5", 0)
        report.down(LinkDown(Cause.LOST, "it hung up"), 0, 1.0, connected_s=1.0, suspect=words)
    assert "does another client use the id" not in caplog.text
    report.set_aside(words)
    report.down(LinkDown(Cause.LOST, "it hung up"), 0, 1.0, connected_s=1.0)
    assert "does another client use the id" not in caplog.text
    assert f"each time right behind edgescribe/v1/pi-1/transcript ({len(words.payload)} bytes)" in caplog.text


def test_a_packet_that_is_too_large_is_told_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    """Its size, the limit, and where that is set."""
    report = LinkReporter(SETTINGS, "pi-1")
    for _ in range(3):
        report.too_large(WORDS, 8_300, 4_096)
    (text,) = [line.getMessage() for line in caplog.records]
    assert text == (
        "mqtt: hub.local:1883 takes no packet above 4096 bytes, and one on edgescribe/v1/pi-1/transcript has 8300 and "
        "is not sent: raise the broker's limit (max_packet_size in mosquitto's configuration)"
    )


def test_a_missing_password_is_named_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """Who has set no password is told to set one, not to check it."""
    LinkReporter(MqttSettings(), "pi-1").down(LinkDown(Cause.CREDENTIALS, "Not authorized"), 0, 60.0)
    assert "refuses clients without a password" in caplog.records[0].getMessage()


def test_a_full_queue_and_a_refused_topic_are_told_once_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    """What would be logged often is counted instead (telemetry's `dropped`)."""
    report = LinkReporter(SETTINGS, "pi-1")
    for _ in range(3):
        report.overflow()
        report.refused(WORDS, "Not authorized")
    assert len(caplog.records) == 2


def test_refused_replies_are_told_once_whatever_their_topics(caplog: pytest.LogCaptureFixture) -> None:
    """Who commands chooses the topics: a thousand of them are neither a thousand lines nor remembered."""
    report = LinkReporter(SETTINGS, "pi-1")
    reply = Outgoing.of("pi-1", Reply(device="pi-1", command="identify", ok=True, code="ok", msg="see the log"), 0.0)
    for number in range(1_000):
        report.refused(replace(reply, topic=f"answers/{number}"), "Not authorized")
        report.too_large(replace(reply, topic=f"answers/{number}"), 70_000, 4_096)
    report.refused(WORDS, "Not authorized")
    assert len(caplog.records) == 2


def test_a_name_without_a_password_is_named_in_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """It was sent, so it may be the wrong one."""
    LinkReporter(MqttSettings(username="kitchen"), "pi-1").down(LinkDown(Cause.CREDENTIALS, "Not authorized"), 0, 60.0)
    assert "refuses the user 'kitchen'" in caplog.records[0].getMessage()


def test_what_the_broker_cannot_do_is_a_code_of_health_until_it_can() -> None:
    """Without retained messages it works, with QoS 0 only it does not."""
    report = LinkReporter(SETTINGS, "pi-1")
    said = []
    report.up("5", 0, retained=False)
    said.append(report.conditions)
    report.down(LinkDown(Cause.QOS, "QoS not supported"), 0, 60.0)
    said.append(report.conditions)
    report.up("5", 0)
    said.append(report.conditions)
    assert said == [("mqtt_not_retained",), ("mqtt_unfit",), ()]


def test_a_certificate_of_another_time_is_no_matter_of_the_authority(caplog: pytest.LogCaptureFixture) -> None:
    """The remedy is the clock, and not mqtt.tls.ca_file."""
    LinkReporter(SETTINGS, "pi-1").down(LinkDown(Cause.DATES, "certificate is not yet valid"), 0, 1.0)
    text = caplog.records[0].getMessage()
    assert "clock" in text
    assert "ca_file" not in text


def test_topics_that_cannot_be_erased_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Those of a former id are five, and the remedy is the same."""
    report = LinkReporter(SETTINGS, "pi-2")
    for name in ("status", "info", "state", "health"):
        report.refused(replace(WORDS, topic=f"edgescribe/v1/pi-1/{name}", payload=b""), "Not authorized")
    (record,) = caplog.records
    assert "edgescribe/v1/pi-1/status" in record.getMessage()
