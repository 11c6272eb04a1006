import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, cast

import pytest

from agent.config.settings import COMMANDS
from agent.mqtt.command_dispatcher import CommandDispatcher
from agent.mqtt.commands import Arguments, CommandValidator, Outcome, SwitchArguments
from agent.mqtt.delivery import Incoming, Outgoing
from agent.worker import Worker

LIMIT_S = 30.0


class Rig:
    """A dispatcher, and a device that is slow with a golden utterance and a calibration; or one that does `execute`."""

    def __init__(self, execute: Callable[[str, Arguments], Outcome] | None = None) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.mute = False
        self.answers: list[dict[str, object]] = []
        self._answered = threading.Condition()
        self.failures: list[Worker] = []
        self.desk = CommandDispatcher(
            "pi-1", CommandValidator("pi-1", COMMANDS, ()), execute or self._execute, self._post, self.failures.append
        )
        self.desk.start()

    def _execute(self, name: str, arguments: Arguments) -> Outcome:
        if name == "mute":
            assert isinstance(arguments, SwitchArguments)
            self.mute = arguments.value
        elif name in {"golden_utterance", "calibrate"}:
            self.began.set()
            assert self.go.wait(LIMIT_S)
        return Outcome("done")

    def _post(self, outgoing: Outgoing) -> None:
        with self._answered:
            self.answers.append(json.loads(outgoing.payload))
            self._answered.notify_all()

    def ask(self, name: str, request_id: str, **args: object) -> None:
        """Let a command come in."""
        payload = json.dumps({"id": request_id, "args": args}).encode()
        self.desk.put(Incoming(f"edgescribe/v1/pi-1/cmd/{name}", payload, retained=False))

    def answered(self, count: int, within_s: float = LIMIT_S) -> list[object]:
        """The ids of the answers, once there are so many, or after so long."""
        with self._answered:
            self._answered.wait_for(lambda: len(self.answers) >= count, within_s)
            return [answer["id"] for answer in self.answers]

    def close(self) -> None:
        """Let everything be done."""
        self.go.set()
        self.desk.close()
        self.desk.join(LIMIT_S)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """One of them."""
    one = Rig()
    yield one
    one.close()


def test_the_microphone_is_closed_while_something_slow_is_under_way(rig: Rig) -> None:
    """Within a second: it does not stay open until the engine has had time for somebody else's question."""
    rig.ask("golden_utterance", "slow")
    assert rig.began.wait(LIMIT_S)
    rig.ask("vad_threshold", "next", value=0.7)
    rig.ask("mute", "mute")
    assert rig.answered(1, within_s=1.0) == ["mute"]
    assert rig.mute
    rig.go.set()
    assert rig.answered(3) == ["mute", "slow", "next"]


def test_other_commands_are_executed_during_a_calibration(rig: Rig) -> None:
    """A second calibration is refused meanwhile; the first one is answered when it is done."""
    rig.ask("calibrate", "slow")
    assert rig.began.wait(LIMIT_S)
    rig.ask("calibrate", "second")
    rig.ask("identify", "other")
    assert rig.answered(2) == ["second", "other"]
    assert [answer["code"] for answer in rig.answers] == ["busy", "ok"]
    rig.go.set()
    assert rig.answered(3) == ["second", "other", "slow"]


def test_opened_and_closed_in_the_order_that_was_asked_for(rig: Rig) -> None:
    """By whichever of the two names; the last one counts."""
    rig.ask("golden_utterance", "slow")
    assert rig.began.wait(LIMIT_S)
    for number in range(9):
        rig.ask("mute", str(number), value=number % 2 == 1)
    rig.ask("listen", "9")
    rig.ask("mute", "10")
    assert rig.answered(11, within_s=5.0) == [str(number) for number in range(11)]
    assert rig.mute


def test_a_request_is_executeed_once_wherever_it_is_repeated(rig: Rig) -> None:
    """One door for all."""
    rig.ask("identify", "a")
    assert rig.answered(1) == ["a"]
    rig.ask("mute", "a")
    rig.ask("mute", "b")
    assert rig.answered(2) == ["a", "b"]


def test_what_waits_at_the_end_is_done(rig: Rig) -> None:
    """A device that was muted as it stopped is mute when it starts again."""
    rig.ask("golden_utterance", "slow")
    assert rig.began.wait(LIMIT_S)
    started_s = time.monotonic()
    rig.ask("identify", "last")
    rig.ask("mute", "mute")
    rig.close()
    assert time.monotonic() - started_s < LIMIT_S
    assert sorted(map(str, rig.answered(3))) == ["last", "mute", "slow"]
    assert rig.mute


class Fault(Exception):  # noqa: N818 - of no kind that the agent knows
    """An exception that nothing expects."""


class Unfit:
    """Nothing that a reply could carry."""


def raising(*_arguments: object) -> NoReturn:
    """Handle nothing."""
    raise Fault


@pytest.mark.parametrize(
    "execute",
    [
        raising,
        lambda _name, _arguments: Outcome("done", then=raising),
        lambda _name, _arguments: Outcome("done", result={"value": Unfit()}),
        lambda _name, _arguments: Outcome("done", result={"\ud800": "\ud800"}),
        lambda _name, _arguments: cast("Outcome", None),
    ],
)
def test_an_exception_in_a_command_ends_in_a_refusal(
    execute: Callable[[str, Arguments], Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal has the id of the request, the log has the traceback, and the next command is handled."""
    rig = Rig(execute)
    rig.ask("identify", "a")
    rig.ask("restart", "b")
    rig.ask("calibrate", "c")
    rig.close()
    refused = sorted(str(answer["id"]) for answer in rig.answers if answer["code"] == "internal_error")
    assert refused == ["a", "b", "c"]
    assert all(record.exc_info for record in caplog.records if record.levelname == "ERROR")
    assert rig.failures == []


def test_a_fault_of_the_validator_is_answered_where_the_answer_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a command is a part of handling it."""
    monkeypatch.setattr(CommandValidator, "validate", raising)
    rig = Rig()
    rig.ask("mute", "a")
    rig.ask("identify", "b")
    rig.close()
    assert sorted((str(answer["id"]), answer["code"]) for answer in rig.answers) == [
        ("a", "internal_error"),
        ("b", "internal_error"),
    ]
