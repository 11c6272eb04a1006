"""The threads that validate and execute incoming commands, and reply.

mqtt thread ──put()─┬─▶ Channel ──▶ thread `control`:    validate ─▶ execute ─▶ reply
                    │                └─▶ thread `calibrate`:          execute ─▶ reply     takes minutes
                    └─▶ Channel ──▶ thread `microphone`: validate ─▶ execute ─▶ reply     mute and listen

Closing the microphone does not wait while another command loads a model.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from agent.channel import Channel
from agent.messages import Reply
from agent.mqtt.commands import Arguments, CommandError, CommandValidator, Outcome, ReturnAddress, printable
from agent.mqtt.delivery import Incoming, Outgoing
from agent.worker import Worker, attempt

log = logging.getLogger(__name__)

CAPACITY: Final = 32
"""Commands of each channel that may wait; a newer one displaces the oldest."""
_MICROPHONE_COMMANDS: Final = frozenset({"listen", "mute"})
_SLOW_COMMAND: Final = "calibrate"
"""Takes minutes: has a thread of its own, one at a time."""


class CommandDispatcher:
    """Executes one command after the other, so that two commands never change the same value at once.

    `execute` gets a command's name and arguments. `post` delivers a reply. Both are called from all threads above.
    """

    def __init__(
        self,
        device_id: str,
        validator: CommandValidator,
        execute: Callable[[str, Arguments], Outcome],
        post: Callable[[Outgoing], None],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._device_id = device_id
        self._validator = validator
        self._execute = execute
        self._post = post
        self._on_failure = on_failure
        self._control: Channel[Incoming] = Channel(CAPACITY, on_drop=self._dropped)
        self._microphone: Channel[Incoming] = Channel(CAPACITY, on_drop=self._dropped)
        self._validating = threading.Lock()
        self._workers = [
            Worker("control", partial(self._serve, self._control), on_failure),
            Worker("microphone", partial(self._serve, self._microphone), on_failure),
        ]
        self._slow: Worker | None = None

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers:
            worker.start()

    def put(self, incoming: Incoming) -> None:
        """Accept a message; called from the thread `mqtt`, and never blocks."""
        name = incoming.topic.rpartition("/")[2]
        (self._microphone if name in _MICROPHONE_COMMANDS else self._control).put(incoming)

    def close(self) -> None:
        """Accept no more commands. The threads still execute the waiting ones."""
        self._control.close()
        self._microphone.close()

    def join(self, timeout_s: float) -> None:
        """Wait until the threads have ended, for at most `timeout_s`."""
        until_s = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(max(0.0, until_s - time.monotonic()))
        if self._slow:
            self._slow.join(max(0.0, until_s - time.monotonic()))

    def _serve(self, channel: Channel[Incoming]) -> None:
        for incoming in channel:
            self._answer_faults(incoming, partial(self._handle, incoming))

    def _answer_faults(self, incoming: Incoming, work: Callable[[], None]) -> None:
        """Run `work` for `incoming`. If it raises, log the traceback and refuse the command."""
        if error := attempt(work):
            log.error(f"control: a command met a fault in the agent ({type(error).__name__})", exc_info=error)
            outcome = Outcome("the agent has a fault: its log has the details", "internal_error")
            attempt(lambda: self._reply(outcome, self._validator.sender(incoming)))

    def _handle(self, incoming: Incoming) -> None:
        sender = self._validator.sender(incoming)
        try:
            with self._validating:
                arguments = self._validator.validate(incoming, datetime.now(UTC))
        except CommandError as error:
            log.warning(f"control: {sender.command!r} refused: {error.code}")
            self._reply(Outcome(str(error), error.code), sender)
            return
        if arguments is None:
            return
        if sender.command != _SLOW_COMMAND:
            self._execute_and_reply(arguments, sender)
        elif self._slow and self._slow.alive:
            self._answer(Outcome("a calibration is under way", "busy"), sender)
        else:
            log.info(f"control: {sender.command}: begun")
            work = partial(self._answer_faults, incoming, partial(self._execute_and_reply, arguments, sender))
            self._slow = Worker(sender.command, work, self._on_failure)
            self._slow.start()

    def _execute_and_reply(self, arguments: Arguments, sender: ReturnAddress) -> None:
        outcome = self._execute(sender.command, arguments)
        self._answer(outcome, sender)
        if outcome.then:
            outcome.then()

    def _answer(self, outcome: Outcome, sender: ReturnAddress) -> None:
        log.info(f"control: {sender.command}: {outcome.code}")
        self._reply(outcome, sender)

    def _reply(self, outcome: Outcome, sender: ReturnAddress) -> None:
        reply = Reply(
            device=self._device_id,
            command=sender.command,
            id=sender.request_id,
            ok=outcome.code == "ok",
            code=outcome.code,
            msg=outcome.msg,
            result=outcome.result,
        )
        outgoing = Outgoing.of(self._device_id, reply, time.monotonic())
        self._post(replace(outgoing, topic=sender.topic or outgoing.topic, correlation=sender.correlation))

    def _dropped(self, incoming: Incoming) -> None:
        name = printable(incoming.topic.rpartition("/")[2])
        log.warning(f"control: {name!r} dropped: {CAPACITY} other commands wait")
