import io
import json
import os
import subprocess
import sys
from pathlib import Path

from agent.messages import Status
from agent.mqtt.stdout import StdoutSink
from tests.messages import transcript


def test_one_line_a_message() -> None:
    """Each line is a JSON object with the topic and the payload as it goes over MQTT."""
    stream = io.StringIO()
    sink = StdoutSink("pi-1", stream)
    sink.send(transcript(1, "Grüße aus der Küche"))
    sink.send(Status(state="online"))
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["topic"] == "edgescribe/v1/pi-1/transcript"
    assert first["payload"] == json.loads(transcript(1, "Grüße aus der Küche").payload())
    assert second == {"topic": "edgescribe/v1/pi-1/status", "payload": "online"}
    assert sink.close(1.0) == 0


def test_text_stays_readable() -> None:
    """Umlauts are written as such, not as escapes: people read this."""
    stream = io.StringIO()
    StdoutSink("pi-1", stream).send(transcript(1, "Grüße"))
    assert "Grüße" in stream.getvalue()


def test_messages_are_not_held_back() -> None:
    """A pipe gets each message when it is sent, not when a buffer is full."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as out, os.fdopen(writer, "w", encoding="utf-8") as stream:
        StdoutSink("pi-1", stream).send(Status(state="online"))
        assert "online" in out.readline()


_WRITE_FOR_EVER = """
import os
import sys
from agent.mqtt.stdout import StdoutSink
from agent.messages import Status
sink = StdoutSink("pi-1", sys.stdout)
while not os.path.samestat(os.fstat(1), os.stat(os.devnull)):  # which is where it goes when nobody reads any more
    sink.send(Status(state="online"))
sink.send(Status(state="offline"))
sys.exit(sink.close(1.0))
"""


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """After `… | head -1` nothing is raised or printed, not even at exit; what nobody read is not undelivered."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOR_EVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    assert "online" in process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(30) == 0


_WRITE_TWICE = """
import logging
import sys
from agent.mqtt.stdout import StdoutSink
from agent.messages import Status
from tests.messages import transcript
logging.basicConfig(format="%(message)s")
sink = StdoutSink("pi-1", sys.stdout)
for seq in (1, 2):
    sink.send(transcript(seq, "Grüße – 你好"))
sys.exit(sink.close(1.0))
"""


def test_a_disk_that_is_full_is_said_once_and_stops_nobody() -> None:
    """Nothing is raised, so that the other sinks get the message; nor at exit, by what was still buffered."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _WRITE_TWICE], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "stdout: cannot write (No space left on device); writing no more messages there\n"
    assert done.returncode == 0


def test_letters_that_a_stream_does_not_have_are_escaped_as_json_does_it() -> None:
    """Each line is still the same document, for whoever parses it."""
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding="latin-1")
    sink = StdoutSink("pi-1", stream)
    for text in ("Grüße", "你好 – 😀"):
        sink.send(transcript(1, text))
    umlauts, others = raw.getvalue().decode("latin-1").splitlines()
    assert "Grüße" in umlauts
    assert json.loads(others)["payload"]["text"] == "你好 – 😀"
