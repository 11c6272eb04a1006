import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.messages.telemetry import Audio, Cpu, Disk, Mem, Mqtt, Pwr
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host, HostReading
from agent.telemetry.snapshot import MOST_BYTES, Snapshot
from agent.telemetry.vitals import VitalsWatch
from tests.messages import NOON, latency
from tests.support.boards import BOARDS, unfold

HOST = HostReading(Cpu(pct=3.0, temp_c=48.3), Mem(avail_mb=512), Disk())


def snapshot(host: HostReading = HOST, counters: Counters | None = None) -> Snapshot:
    """A moment at which that is known."""
    counters = counters or Counters()
    return Snapshot(
        at=NOON,
        up_s=61.9,
        host=host,
        audio=counters.audio(),
        asr=counters.asr(waiting=0),
        mqtt=Mqtt(outbox_n=0, dropped=0, reconnects=1),
        heard_s=counters.heard_s,
        speech_s=counters.speech_s,
        rtfs=counters.rtfs(),
        latencies_s=counters.latencies_s(),
    )


def test_every_part_goes_where_the_contract_wants_it() -> None:
    """Host, counters and link in one message."""
    counters = Counters()
    counters.transcribed(rtf=0.1, latency=latency(800))
    payload = json.loads(snapshot(counters=counters).message().payload())
    assert payload["up_s"] == 61
    assert payload["cpu"] == {"pct": 3.0, "temp_c": 48.3}
    assert payload["disk"] == {}
    assert payload["asr"]["utt"] == 1
    assert payload["mqtt"] == {"outbox_n": 0, "dropped": 0, "reconnects": 1}


def test_without_mqtt_there_is_no_link_to_report() -> None:
    """Who prints to standard output only sees no made-up broker."""
    assert "mqtt" not in json.loads(replace(snapshot(), mqtt=None).message().payload())


def test_flags_and_measurements_of_power_become_one_part() -> None:
    """The one come from the watch, the others from the reading."""
    host = replace(HOST, pwr=Pwr(in_w=4.7, mode="15W")).with_power(Pwr(uv_now=False, uv_events=2))
    assert host.pwr == Pwr(in_w=4.7, mode="15W", uv_now=False, uv_events=2)
    assert HOST.with_power(Pwr()).pwr is None


@pytest.mark.parametrize("board", BOARDS)
def test_a_message_is_at_most_a_kilobyte(board: str, tmp_path: Path) -> None:
    """1,024 bytes, with everything that a board can tell, after months of work: large counts in every field."""
    unfold(board, tmp_path)
    counters = Counters()
    counters.heard(31_000_000.0)
    counters.spoken(2_123_456.78, samples=16_000, clipped=123)
    for _ in range(64):
        counters.transcribed(rtf=12.345, latency=latency(123_456))
    watch = VitalsWatch(tmp_path)
    moment = snapshot(Host(tmp_path, tmp_path).read().with_power(watch.latest.power), counters)
    full = replace(
        moment,
        up_s=31_000_000.0,
        audio=Audio(
            xruns=123_456,
            gaps_s=123_456.78,
            losses=123,
            silences=123,
            noise_floor_dbfs=-58.2,
            clip_pct=12.34,
            offset_pct=-1.2,
        ),
        asr=moment.asr.model_copy(
            update={
                "utt": 1_234_567,
                "rejected": 123_456,
                "discarded": 1_234_567,
                "dropped_s": 123_456.78,
                "waiting": 16,
                "engine_restarts": 99,
            }
        ),
        mqtt=Mqtt(outbox_n=50_000, outbox_mb=63.99, dropped=123_456, reconnects=12_345, puback_ms_p95=12_345),
    )
    assert len(full.message().payload()) <= MOST_BYTES


def test_rails_are_left_out_before_a_message_grows_too_large() -> None:
    """A board with dozens of them: the message keeps its size, and everything else."""
    many = Pwr(uv_now=False, rails_w={f"VDD_RAIL_NUMBER_{number}": 1.25 for number in range(40)})
    message = snapshot(replace(HOST, pwr=many)).message()
    assert len(message.payload()) <= MOST_BYTES
    assert message.pwr == Pwr(uv_now=False)
    few = many.model_copy(update={"rails_w": {"VDD_IN": 4.7}})
    assert snapshot(replace(HOST, pwr=few)).message().pwr == few
