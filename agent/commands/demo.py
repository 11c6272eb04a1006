"""Runs the agent on a bundled recording, at the speed of speech, with a broker of its own on this machine.

Shows the MQTT messages that a separate client receives. Fetches the model if it is not on this device.

Examples:
    edgescribe demo
    edgescribe demo --mic
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.audio.alsa import AlsaSource
from agent.audio.libasound import CHOOSE
from agent.bench.clips import demo_clips
from agent.commands.models import pull
from agent.commands.options import engine_kind_for
from agent.config.layers import load_settings, models_dir
from agent.config.settings import AlsaSettings, Settings
from agent.errors import SourceError
from agent.mqtt.embedded_broker import EmbeddedBroker, embedded_broker
from agent.mqtt.subscriber import Subscriber
from agent.terminal.demo import Demonstration

DEVICE_ID = "demo"
DEFAULT_MODEL = "tiny.en-q8_0"
STOP_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--mic", nargs="?", const="default", metavar="DEVICE", help="listen to a microphone instead")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a model by name (default: {DEFAULT_MODEL})")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; 0 if transcripts came through."""
    # Every signal that ends this program must also end the agent and the broker that it starts.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    settings = load_settings()
    if args.mic:
        _check_microphone(args.mic)
    pull(args.model, settings)
    clips = demo_clips()
    script, end_s = " ".join(clip.text for clip in clips), (clips[-1].start_s or 0.0) + clips[-1].duration_s
    show = Demonstration(None if args.mic else script, end_s)
    with (
        embedded_broker() as broker,
        Subscriber(broker.settings, f"edgescribe/v1/{DEVICE_ID}/#") as subscriber,
        tempfile.TemporaryDirectory(prefix="edgescribe-demo-") as folder,
    ):
        show.opening(args.model, f"{broker.kind} at {broker.host}:{broker.port}", subscriber.topic)
        source = {"kind": "alsa", "device": args.mic} if args.mic else {"kind": "wav", "path": clips[0].path}
        environment = {key: value for key, value in os.environ.items() if not key.upper().startswith("EDGESCRIBE_")}
        command = _command(args.model, source, broker, settings, Path(folder))
        # In a session of its own: Ctrl-C reaches only this program, which then still shows the agent's last messages.
        agent = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            show.follow(subscriber, agent)
        finally:
            status = _await_end(agent)
    show.closing()
    return status or (0 if show.texts else 1)


def _check_microphone(device: str) -> None:
    """Try the microphone before a model is fetched. The remedy names --mic: this command takes no settings."""
    try:
        AlsaSource(AlsaSettings(device=device)).close()
    except SourceError as error:
        raise type(error)(str(error).replace(CHOOSE, "take --mic")) from error


def _command(
    model: str, source: dict[str, object], broker: EmbeddedBroker, settings: Settings, folder: Path
) -> list[str]:
    """Return the command line of the agent. No other configuration on this machine applies to it."""
    (folder / "config.toml").touch()
    chosen = {f"source.{key}": value for key, value in source.items()} | {
        "state_dir": folder,  # not that of an agent that may run on this machine, with its outbox
        "device.id": DEVICE_ID,
        "device.name": "Demonstration",
        "engine.kind": engine_kind_for(model),
        "engine.model": model,
        "models.dir": models_dir(settings),
        "mqtt.host": broker.host,
        "mqtt.port": broker.port,
        "mqtt.protocol": "3.1.1" if broker.kind == "amqtt" else "auto",  # amqtt does not answer MQTT 5
        "telemetry.interval_s": 15,
        "log.level": "warning",
    }
    overrides = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "agent", "run", "--config", str(folder / "config.toml"), *overrides]


def _await_end(agent: subprocess.Popen[bytes]) -> int:
    if agent.poll() is None:
        agent.send_signal(signal.SIGTERM)
    try:
        return agent.wait(STOP_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        return agent.wait()
