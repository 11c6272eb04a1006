import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent import __version__
from agent.config.settings import PrometheusSettings
from agent.errors import ConfigError
from agent.telemetry import prometheus, tcp
from agent.telemetry.counters import Counters
from agent.telemetry.prometheus import exposition, prometheus_server
from agent.telemetry.snapshot import Host, HostReading, Snapshot
from agent.telemetry.tcp import CLIENTS, TcpServer, listen_at
from agent.telemetry.vitals import VitalsWatch
from agent.worker import Worker
from tests.messages import latency
from tests.starved import no_descriptors
from tests.support.boards import BOARDS, unfold
from tests.support.snapshots import snapshot

ANY_PORT = PrometheusSettings(enabled=True, port=0)


def never(worker: Worker) -> None:
    """The thread must not fail."""
    raise AssertionError(worker.failure)


@pytest.fixture
def server() -> Iterator[TcpServer]:
    """A server at a free port, with one metric."""
    with closing(prometheus_server(ANY_PORT, lambda: "edgescribe_up 1\n", never)) as running:
        yield running


def get(port: int, path: str) -> tuple[HTTPResponse, bytes]:
    """A real request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response, response.read()


def test_the_metrics_are_where_prometheus_looks(server: TcpServer) -> None:
    """By a real request, with the type of the format."""
    response, body = get(server.port, "/metrics")
    assert (response.status, body) == (200, b"edgescribe_up 1\n")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Server"] == "edgescribe"
    assert get(server.port, "/metrics?format=text")[1] == body


def test_everything_else_says_where_they_are(server: TcpServer) -> None:
    """404, and a hint for people."""
    response, body = get(server.port, "/")
    assert (response.status, body) == (404, b"metrics are at /metrics\n")


def test_who_hangs_up_does_no_harm(server: TcpServer) -> None:
    """Half a request, and nonsense: the next one is answered."""
    for said in (b"GET /metr", b"\x16\x03\x01\x00 nonsense\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(said)
    assert get(server.port, "/metrics")[0].status == 200


def test_it_listens_on_this_device_only(server: TcpServer) -> None:
    """The default address is the loopback: of a socket bound there, the kernel says so."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == server.port}
    assert listening == {f"0100007F:{server.port:04X}"}


def test_its_thread_ends_when_it_is_closed() -> None:
    """Nothing is left behind, and closing twice is as good as once."""
    running = prometheus_server(ANY_PORT, str, never)
    assert "prometheus" in {thread.name for thread in threading.enumerate()}
    assert running.close()
    assert running.close()
    assert "prometheus" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        get(running.port, "/metrics")


def test_without_descriptors_it_is_patient_and_answers_when_there_are_some_again(
    server: TcpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; who waited meanwhile is answered."""
    with socket.socket() as client:
        client.settimeout(30)
        with no_descriptors():
            client.connect(("127.0.0.1", server.port))
            time.sleep(1.2)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.0 200"
    assert caplog.text.count("a connection could not be taken (Too many open files)") == 1


def test_slow_clients_keep_nobody_out(server: TcpServer) -> None:
    """As many as there are places, and as many again: half a line, half a head, nothing at all."""
    with ExitStack() as clients:
        for said in (b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"") * CLIENTS:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            client.sendall(said)
        for _ in range(3):
            assert get(server.port, "/metrics")[1] == b"edgescribe_up 1\n"


@pytest.mark.parametrize("piece", [b"x", b"X-Padding: 1\r\n"], ids=["line", "head"])
def test_the_time_for_a_request_is_limited_as_a_whole(
    piece: bytes, server: TcpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that sends a little every moment is hung up on, and no thread ends with a traceback."""
    monkeypatch.setattr(prometheus, "_REQUEST_S", 1.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client, suppress(OSError):
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
        for _ in range(3_000):
            client.sendall(piece)
            time.sleep(0.02)
        pytest.fail("it listened for a minute")
    until_s = time.monotonic() + 30.0
    while "too slow" not in caplog.text and time.monotonic() < until_s:
        time.sleep(0.01)
    assert caplog.text.count("closed the connection from 127.0.0.1") == 1


def test_the_size_of_a_request_is_limited_as_a_whole(server: TcpServer) -> None:
    """A line of the head without an end is not read to its end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.settimeout(30)
        with suppress(OSError):
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-Padding: " + b"x" * 10_000_000)
        with suppress(ConnectionError):
            assert client.recv(100) == b""
    assert get(server.port, "/metrics")[0].status == 200


def test_metrics_are_rendered_for_one_client_at_a_time() -> None:
    """Rates are those since the request before: two at once would share them out."""
    at_once, most = threading.Semaphore(0), []

    def render() -> str:
        at_once.release()
        most.append(at_once._value)
        time.sleep(0.05)
        at_once.acquire()
        return ""

    with closing(prometheus_server(ANY_PORT, render, never)) as running:
        clients = [threading.Thread(target=get, args=(running.port, "/metrics")) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert most == [1] * 4


def test_a_port_that_is_taken_is_said_in_one_line(server: TcpServer) -> None:
    """What, where, and what to do about it."""
    taken = PrometheusSettings(enabled=True, port=server.port)
    with pytest.raises(ConfigError, match=rf"cannot listen at 127.0.0.1:{server.port} \(address already in use\): set"):
        prometheus_server(taken, str, never)


def test_an_address_that_has_not_come_yet_is_no_reason_to_stay_down(caplog: pytest.LogCaptureFixture) -> None:
    """The device's own one in the network, after a power cut: Wi-Fi takes longer than we do."""
    coming = PrometheusSettings(enabled=True, host="192.0.2.7", port=0)
    with closing(prometheus_server(coming, str, never)):
        assert "192.0.2.7 is no address of this device yet" in caplog.text


def test_a_name_that_nobody_knows_yet_is_no_reason_to_stay_down(caplog: pytest.LogCaptureFixture) -> None:
    """It is said with its setting; closing meanwhile does not wait for it."""
    coming = PrometheusSettings(enabled=True, host="edgescribe.invalid", port=0)
    assert prometheus_server(coming, str, never).close()
    assert "prometheus.host = edgescribe.invalid: cannot listen at" in caplog.text
    assert "prometheus" not in {thread.name for thread in threading.enumerate()}


def test_metrics_are_there_as_soon_as_the_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name stands for this device from the second attempt on."""
    hosts = iter(["edgescribe.invalid"])
    monkeypatch.setattr(tcp, "listen_at", lambda _host, port: listen_at(next(hosts, "127.0.0.1"), port))
    monkeypatch.setattr(tcp, "RETRY_S", 0.01)
    coming = PrometheusSettings(enabled=True, host="edgescribe.invalid", port=0)
    with closing(prometheus_server(coming, lambda: "edgescribe_up 1\n", never)) as running:
        until_s = time.monotonic() + 30.0
        while not running.port and time.monotonic() < until_s:
            time.sleep(0.01)
        assert get(running.port, "/metrics")[1] == b"edgescribe_up 1\n"


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="this kernel has no IPv6")
def test_it_listens_at_an_address_of_ipv6_as_well() -> None:
    """The kernel says so of a socket bound there."""
    with closing(prometheus_server(PrometheusSettings(enabled=True, host="::1", port=0), str, never)) as running:
        lines = [line.split() for line in Path("/proc/net/tcp6").read_text(encoding="ascii").splitlines()[1:]]
        assert any(line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == running.port for line in lines)


def parsed(moment: Snapshot) -> dict[str, Metric]:
    """What Prometheus's own client makes of the text, by name."""
    return {family.name: family for family in text_string_to_metric_families(exposition(moment))}


def values(family: Metric) -> dict[str, float]:
    """Its samples, by the value of their only label."""
    return {" ".join(sample.labels.values()): sample.value for sample in family.samples}


def board(name: str, root: Path) -> HostReading:
    """One of the boards."""
    unfold(name, root)
    return Host(root, root).read(VitalsWatch(root).latest)


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
    assert (rtfs["0.05"], rtfs["0.2"], rtfs["4.0"], rtfs["+Inf"]) == (1, 3, 3, 4)
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
    counters.add("discarded")
    counters.add("rejected")
    families = parsed(snapshot(counters=counters))
    assert values(families["edgescribe_sounds_discarded"]) == {"": 1}
    assert values(families["edgescribe_utterances"]) == {"published": 0, "rejected": 1}


def test_what_is_not_known_has_no_sample() -> None:
    """No zero for a sensor that is not there, and no head without a body."""
    names = parsed(snapshot()).keys()
    assert not {name for name in names if re.search(r"temperature|gpu|fan|wifi|volt|pressure|rail|noise", name)}
    assert "edgescribe_outbox_messages" not in parsed(snapshot(mqtt=None))


def test_labels_are_escaped() -> None:
    """A quote in a label must not end it."""
    codes = ("hot", 'a "quoted\\ code')
    assert set(values(parsed(snapshot(problems=codes))["edgescribe_problem"])) == set(codes)
