import json

from agent.telemetry.counters import Counters
from agent.telemetry.host import HostReading
from agent.telemetry.snapshot import telemetry_message
from agent.wire import Cpu, Disk, Mem, Mqtt
from tests.messages import NOON

HOST = HostReading(Cpu(pct=3.0, temp_c=48.3), Mem(avail_mb=512), Disk())


def test_every_part_goes_where_the_contract_wants_it() -> None:
    """Host, counters and link in one message."""
    counters = Counters()
    counters.transcribed(rtf=0.1, latency_ms=800)
    link = Mqtt(outbox_n=0, dropped=0, reconnects=1)
    payload = json.loads(telemetry_message(HOST, counters, link, now=NOON, up_s=61.9).payload())
    assert payload["up_s"] == 61
    assert payload["cpu"] == {"pct": 3.0, "temp_c": 48.3}
    assert payload["disk"] == {}
    assert payload["asr"]["utt"] == 1
    assert payload["mqtt"] == {"outbox_n": 0, "dropped": 0, "reconnects": 1}


def test_without_mqtt_there_is_no_link_to_report() -> None:
    """Who prints to standard output only sees no made-up broker."""
    payload = json.loads(telemetry_message(HOST, Counters(), None, now=NOON, up_s=0.0).payload())
    assert "mqtt" not in payload
