import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.messages.telemetry import Audio, Mqtt, Pwr
from agent.telemetry.counters import Counters
from agent.telemetry.snapshot import MOST_BYTES, Host, take_snapshot
from agent.telemetry.vitals import Vitals, VitalsWatch
from tests.messages import latency
from tests.support.boards import BOARDS, unfold
from tests.support.snapshots import NOTHING, snapshot


def test_every_part_goes_where_the_contract_wants_it(tmp_path: Path) -> None:
    """Machine, counters, queue and link in one message."""
    counters = Counters()
    counters.transcribed(rtf=0.1, latency=latency(800))
    reading = Host(tmp_path, tmp_path).read(Vitals(0.0))
    link = Mqtt(outbox_n=0, dropped=0, reconnects=1)
    moment = take_snapshot(reading, counters, waiting=2, started_s=0.0, mqtt=link, problems=())
    payload = json.loads(moment.message().payload())
    assert payload["up_s"] > 0
    assert payload["cpu"] == {}
    assert (payload["asr"]["utt"], payload["asr"]["waiting"]) == (1, 2)
    assert payload["mqtt"] == {"outbox_n": 0, "dropped": 0, "reconnects": 1}
    moment = take_snapshot(reading, counters, waiting=2, started_s=0.0, mqtt=None, problems=())
    assert "mqtt" not in json.loads(moment.message().payload())


def test_flags_and_measurements_of_power_become_one_part(tmp_path: Path) -> None:
    """The one come from the watch, the others from the reading."""
    flags = Pwr(uv_now=False, uv_events=2)
    assert Host(tmp_path, tmp_path).read(Vitals(0.0, power=flags)).pwr == flags
    assert Host(tmp_path, tmp_path).read(Vitals(0.0)).pwr is None


@pytest.mark.parametrize("board", BOARDS)
def test_a_message_is_at_most_a_kilobyte(board: str, tmp_path: Path) -> None:
    """1,024 bytes, with everything that a board can tell, after months of work: large counts in every field."""
    unfold(board, tmp_path)
    counters = Counters()
    counters.add("heard_s", 31_000_000.0)
    counters.add("speech_s", 2_123_456.78)
    for _ in range(64):
        counters.transcribed(rtf=12.345, latency=latency(123_456))
    full = snapshot(Host(tmp_path, tmp_path).read(VitalsWatch(tmp_path).latest), counters).telemetry
    changes = {
        "up_s": 31_000_000,
        "audio": Audio(
            xruns=123_456,
            gaps_s=123_456.78,
            losses=123,
            silences=123,
            noise_floor_dbfs=-58.2,
            clip_pct=12.34,
            offset_pct=-1.2,
        ),
        "asr": full.asr.model_copy(
            update={
                "utt": 1_234_567,
                "rejected": 123_456,
                "discarded": 1_234_567,
                "dropped_s": 123_456.78,
                "waiting": 16,
                "engine_restarts": 99,
            }
        ),
        "mqtt": Mqtt(outbox_n=50_000, outbox_mb=63.99, dropped=123_456, reconnects=12_345, puback_ms_p95=12_345),
    }
    assert len(full.model_copy(update=changes).payload()) <= MOST_BYTES


def test_rails_are_left_out_before_a_message_grows_too_large() -> None:
    """A board with dozens of them: the message keeps its size, and everything else."""
    many = Pwr(uv_now=False, rails_w={f"VDD_RAIL_NUMBER_{number}": 1.25 for number in range(40)})
    message = snapshot(replace(NOTHING, pwr=many)).message()
    assert len(message.payload()) <= MOST_BYTES
    assert message.pwr == Pwr(uv_now=False)
    few = many.model_copy(update={"rails_w": {"VDD_IN": 4.7}})
    assert snapshot(replace(NOTHING, pwr=few)).message().pwr == few
