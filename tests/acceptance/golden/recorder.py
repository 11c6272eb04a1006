"""Runs the real command and writes down what it did."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.acceptance.golden.normal import Normaliser
from tests.conftest import REPOSITORY
from tests.support.agent_process import LIMIT_S, AgentProcess, command, environment
from tests.support.commander import Commander
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Message, Receiver, eventually

DEVICE: Final = "pi-1"
ASIDE: Final = {
    "words": {"transcript", "transcript/backlog", "transcript/failed", "keyword"},
    "speaking": {"vad"},
}
"""Kinds that other threads publish: in order among themselves, but their place among the rest differs."""
QUIET_S: Final = 0.7
SETTLE_S: Final = 0.1
END: Final = "golden/end"
"""The broker delivers what it has retained before this."""
LEFT_OUT: Final = ("telemetry",)


class Agent:
    """An agent that runs, and those who talk with it."""

    def __init__(self, device: str, process: AgentProcess, receiver: Receiver, commander: Commander) -> None:
        self.device = device
        self.process = process
        self.commander = commander
        self.asked: list[dict[str, Any]] = []
        self._receiver = receiver

    def arrived(self) -> list[Message]:
        """What has arrived since it was started."""
        return list(self._receiver.messages)

    def payloads(self, kind: str) -> list[str]:
        """The payloads that have arrived on a topic of the device."""
        return [each.payload for each in self.arrived() if each.topic == f"edgescribe/v1/{self.device}/{kind}"]

    def await_payload(self, kind: str, payload: str) -> None:
        """Wait until the device has published it."""
        assert eventually(lambda: payload in self.payloads(kind)), self.process.stderr

    def await_birth(self, log: str = "listening to") -> None:
        """Wait until it listens, and has said what and how it is."""
        assert eventually(lambda: bool(self.payloads("health"))), self.process.stderr
        self.process.await_log(log)

    def await_quiet(self) -> None:
        """Wait until nothing has arrived for a while."""
        count = -1
        while count != len(self._receiver.messages):
            count = len(self._receiver.messages)
            time.sleep(QUIET_S)

    def ask(self, name: str, payload: object = "") -> None:
        """Send a command, and write down the answer."""
        self.asked.append({"command": name, "payload": payload, "answer": self.commander.ask(name, payload)})
        time.sleep(SETTLE_S)  # two changes of the state in one moment may become one message


class Recorder:
    """Collects the steps of one golden run."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder = folder
        self.broker = broker
        self.steps: list[dict[str, Any]] = []
        self._host = folder / "host"
        self._host.mkdir()
        self._normal = Normaliser({folder: "<folder>", REPOSITORY: "<repository>"})

    def do(self, *arguments: str | Path, stdin: bytes = b"", **variables: str) -> None:
        """Run a command to its end, in the folder of the run."""
        done = subprocess.run(
            command(*map(str, arguments)),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
            cwd=self.folder,
            env={
                **environment(self.folder, **{"COLUMNS": "100", "PYTHONPATH": str(REPOSITORY), **variables}),
            },
        )
        step = {
            "command": self._normal.text(" ".join(["edgescribe", *map(str, arguments)])),
            **({"variables": {key: self._normal.text(text) for key, text in variables.items()}} if variables else {}),
            "exit": done.returncode,
            "stdout": self._output(done.stdout.decode()),
            "stderr": self._normal.lines(done.stderr.decode()),
        }
        self.steps.append(step)

    def _output(self, text: str) -> list[Any]:
        """Lines; a line or a text that is a JSON document becomes one."""
        try:
            return [self._normal.value(json.loads(text))]
        except json.JSONDecodeError:
            return [self._normal.payload(line) for line in text.splitlines()]

    def run(self, **settings: Any) -> None:
        """Run an agent until its recording is over."""
        with self.agent(**settings):
            pass

    @contextmanager
    def agent(self, *, one_list: bool = False, kills: bool = False, **settings: Any) -> Iterator[Agent]:
        """Run an agent; the end of the block waits for its end.

        `one_list` keeps transcripts among the other messages. `kills` means that the block kills the agent.
        """
        defaults = {
            "device__id": DEVICE,
            "engine__kind": "scripted",
            "engine__isolation": "thread",
            "engine__texts": ["turn on the light", "the heater is off"],
            "mqtt__host": "127.0.0.1",
            "mqtt__port": self.broker.port,
            "discovery__mode": "off",
            "source__kind": "wav",
            "source__pace": "flat_out",
            "telemetry__host_root": self._host,
        }
        changed = self._shown({key.replace("__", "."): value for key, value in settings.items()})
        with ExitStack() as stack:
            receiver = stack.enter_context(Receiver(self.broker.port, "#", from_now_on=True))
            commander = stack.enter_context(Commander(self.broker.port))
            process = AgentProcess(self.folder, {**defaults, **settings})
            agent = Agent(settings.get("device__id", DEVICE), process, receiver, commander)
            try:
                yield agent
                status = process.wait()
            finally:
                process.kill()
            if agent.payloads("status"):
                agent.await_payload("status", "offline")
            step = {
                "agent": changed,
                "exit": "killed" if kills else status,
                **self._published(process, agent.arrived(), one_list=one_list),
                **({"asked": [self._asked(each) for each in agent.asked]} if agent.asked else {}),
                **({"retained": self._retained(commander)} if agent.arrived() else {}),
            }
            # Several threads log, so the order differs from run to run.
            self.steps.append({**step, "stderr": sorted(self._normal.lines(process.stderr))})

    def _shown(self, value: object) -> Any:
        return self._normal.value(json.loads(json.dumps(value, default=str)))

    def _asked(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "payload": self._normal.value(one["payload"]), "answer": self._normal.value(one["answer"])}

    def _published(self, process: AgentProcess, arrived: Sequence[Message], *, one_list: bool) -> dict[str, Any]:
        """Messages of the broker and of standard output."""
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        printed = [(line["topic"], self._normal.value(line)) for line in lines]
        received = [(each.topic, self._normal.message(each)) for each in arrived if "/cmd/" not in each.topic]
        received = [(topic, message) for topic, message in received if topic != "commander/answers"]
        found: dict[str, Any] = {}
        for name, messages in (("messages", received), ("stdout", printed)):
            kept = [(kind_of(topic), message) for topic, message in messages if kind_of(topic) not in LEFT_OUT]
            for group, kinds in ASIDE.items():
                if one_list and group == "words":
                    continue
                if aside := [message for kind, message in kept if kind in kinds]:
                    found[f"{name}: {group}"] = aside
                kept = [(kind, message) for kind, message in kept if kind not in kinds]
            if kept:
                found[name] = [message for _, message in kept]
        return found

    def _retained(self, commander: Commander) -> list[str]:
        """The topics that a later subscriber gets."""
        with Receiver(self.broker.port, "#") as late:
            commander.publish(END, "")
            assert eventually(lambda: bool(late.messages) and late.messages[-1].topic == END)
            return sorted(message.topic for message in late.messages[:-1])


def kind_of(topic: str) -> str:
    """The levels behind the id of the device."""
    return topic.removeprefix(f"edgescribe/v1/{DEVICE}/")
