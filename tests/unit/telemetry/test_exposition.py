import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent import __version__
from agent.messages.telemetry import Cpu, Disk, Mem, Mqtt
from agent.telemetry.counters import Counters
from agent.telemetry.exposition import exposition
from agent.telemetry.host import Host, HostReading
from agent.telemetry.snapshot import Snapshot
from agent.telemetry.vitals import VitalsWatch
from tests.messages import NOON, latency
from tests.support.boards import BOARDS, unfold

NOTHING = HostReading(Cpu(), Mem(), Disk())


def snapshot(host: HostReading = NOTHING, counters: Counters | None = None) -> Snapshot:
    """A moment at which that is known."""
    counters = counters or Counters()
    return Snapshot(
        at=NOON,
        up_s=61.5,
        host=host,
        audio=counters.audio(),
        asr=counters.asr(waiting=1),
        mqtt=Mqtt(outbox_n=3, outbox_mb=0.5, dropped=1, reconnects=2, puback_ms_p95=7),
        heard_s=counters.heard_s,
        speech_s=counters.speech_s,
        rtfs=counters.rtfs(),
        latencies_s=counters.latencies_s(),
        problems=("hot", 'a "quoted\\ code'),
    )


def parsed(moment: Snapshot) -> dict[str, Metric]:
    """What Prometheus's own client makes of the text, by name."""
    return {family.name: family for family in text_string_to_metric_families(exposition(moment))}


def values(family: Metric) -> dict[str, float]:
    """Its samples, by the value of their only label."""
    return {" ".join(sample.labels.values()): sample.value for sample in family.samples}


def board(name: str, root: Path) -> HostReading:
    """One of the boards."""
    unfold(name, root)
    return Host(root, root).read().with_power(VitalsWatch(root).latest.power)


def test_values_are_in_base_units(tmp_path: Path) -> None:
    """Bytes, seconds, hertz, ratios, degrees: a Jetson Orin Nano's reading."""
    families = parsed(snapshot(board("jetson-orin-nano", tmp_path)))
    single = {name: family.samples[0].value for name, family in families.items() if len(family.samples) == 1}
    assert single["edgescribe_cpu_temperature_celsius"] == 48.3
    assert single["edgescribe_cpu_frequency_hertz"] == 1_510_000_000
    assert single["edgescribe_memory_available_bytes"] == 5_714 * 1024 * 1024
    assert single["edgescribe_memory_used_ratio"] == 0.25
    assert single["edgescribe_disk_written_bytes"] == 2 * 1024**3
    assert single["edgescribe_gpu_usage_ratio"] == 0.123
    assert single["edgescribe_undervoltage"] == 0
    assert single["edgescribe_input_power_watts"] == 4.74
    assert single["edgescribe_mqtt_acknowledgement_p95_seconds"] == 0.007
    assert single["edgescribe_outbox_bytes"] == 512 * 1024
    assert values(families["edgescribe_pressure_ratio"]) == {"cpu": 0.0012, "memory": 0.0, "io": 0.0005}
    assert values(families["edgescribe_rail_power_watts"])["VDD_SOC"] == 1.43
    assert values(families["edgescribe_build_info"]) == {__version__: 1}


@pytest.mark.parametrize("name", BOARDS)
def test_names_are_as_prometheus_wants_them(name: str, tmp_path: Path) -> None:
    """Counters end in _total and nothing else does, no unit is a multiple, every family says what it is, once."""
    text = exposition(snapshot(board(name, tmp_path)))
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    helped = re.findall(r"^# HELP (\w+) \S", text, re.MULTILINE)
    assert [found for found, _ in kinds] == helped
    assert len(set(helped)) == len(helped)
    for found, kind in kinds:
        assert found.startswith("edgescribe_")
        assert found.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|mb|mhz|pct|percent|milliseconds)(_|$)", found)


def test_distributions_are_cumulative_histograms() -> None:
    """Each class counts what is below, the last one everything, as `_count` does."""
    counters = Counters()
    for rtf in (0.04, 0.15, 0.15, 9.0):
        counters.transcribed(rtf=rtf, latency=latency(800))
    families = parsed(snapshot(counters=counters))
    samples = families["edgescribe_real_time_factor"].samples
    rtfs = {sample.labels.get("le", sample.name): sample.value for sample in samples}
    assert (rtfs["0.05"], rtfs["0.2"], rtfs["4"], rtfs["+Inf"]) == (1, 3, 3, 4)
    assert rtfs["edgescribe_real_time_factor_count"] == 4
    assert rtfs["edgescribe_real_time_factor_sum"] == pytest.approx(9.34)
    sums = {
        sample.labels["stage"]: sample.value
        for sample in families["edgescribe_latency_seconds"].samples
        if sample.name.endswith("_sum")
    }
    assert sums == pytest.approx({"vad_close": 2.4, "queue": 0.16, "encode_decode": 0.64, "total_from_speech_end": 3.2})


def test_sounds_that_were_no_utterance_are_counted_apart() -> None:
    """Among the results of utterances, which were transcribed, they would not belong."""
    counters = Counters()
    counters.discarded()
    counters.rejected()
    families = parsed(snapshot(counters=counters))
    assert values(families["edgescribe_sounds_discarded"]) == {"": 1}
    assert values(families["edgescribe_utterances"]) == {"published": 0, "rejected": 1}


def test_what_is_not_known_has_no_sample() -> None:
    """No zero for a sensor that is not there, and no head without a body."""
    names = parsed(snapshot()).keys()
    assert not {name for name in names if re.search(r"temperature|gpu|fan|wifi|volt|pressure|rail|noise", name)}
    assert "edgescribe_outbox_messages" not in parsed(replace(snapshot(), mqtt=None))


def test_labels_are_escaped() -> None:
    """A quote in a label must not end it."""
    assert set(values(parsed(snapshot())["edgescribe_problem"])) == {"hot", 'a "quoted\\ code'}
