"""The threads that take commands that came in, validate and execute them, and reply.

mqtt thread ──put()─┬─▶ Channel ──▶ thread `control`:    validate ─▶ execute ─▶ reply
                    └─▶ Channel ──▶ thread `microphone`: validate ─▶ execute ─▶ reply     mute and listen

Closing the microphone does not wait for a model to be loaded.
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
from agent.mqtt.commands import (
    Accepted,
    Command,
    CommandValidator,
    Later,
    Listen,
    Mute,
    Outcome,
    Refused,
    ReturnAddress,
    fault,
    shown,
)
from agent.mqtt.delivery import Incoming, Outgoing
from agent.worker import attempt

log = logging.getLogger(__name__)

CAPACITY = 32
"""Commands of each kind that may wait; the oldest is dropped for a newer one."""
_MICROPHONE_COMMANDS: Final = frozenset({Listen.name, Mute.name})


class CommandDispatcher:
    """One command after the other, so that two of them never change the same thing at once.

    Those of the microphone have a thread and an order of their own. `execute` is called from both threads. It may take
    as long as it needs, but for the microphone; what takes minutes is done elsewhere, and answered when it is done.
    `post` delivers a reply.
    """

    def __init__(
        self,
        device_id: str,
        validator: CommandValidator,
        execute: Callable[[Command], Outcome | Later],
        post: Callable[[Outgoing], None],
    ) -> None:
        self._device_id = device_id
        self._validator = validator
        self._execute = execute
        self._post = post
        self._for_others: Channel[Incoming] = Channel(CAPACITY, on_drop=self._too_many)
        self._for_microphone: Channel[Incoming] = Channel(CAPACITY, on_drop=self._too_many)
        self._validating = threading.Lock()

    def put(self, incoming: Incoming) -> None:
        """Take a message that came in; called from the thread `mqtt`, and never blocks."""
        name = incoming.topic.rpartition("/")[2]
        (self._for_microphone if name in _MICROPHONE_COMMANDS else self._for_others).put(incoming)

    def close(self) -> None:
        """No more commands; those under way are finished, and those that wait are done, too."""
        self._for_others.close()
        self._for_microphone.close()

    def run(self) -> None:
        """Execute commands until closed: the work of the thread `control`."""
        self._serve(self._for_others)

    def run_microphone(self) -> None:
        """Open and close the microphone until closed: the work of the thread `microphone`."""
        self._serve(self._for_microphone)

    def _serve(self, channel: Channel[Incoming]) -> None:
        """Handle commands until `channel` is closed. A command that raises is refused, and the next one follows."""
        for incoming in channel:
            if error := attempt(partial(self._handle, incoming)):
                attempt(partial(self._answer_fault, incoming, error))

    def _answer_fault(self, incoming: Incoming, error: Exception) -> None:
        self._reply(fault(error), self._validator.sender(incoming))

    def _handle(self, incoming: Incoming) -> None:
        with self._validating:
            checked = self._validator.validate(incoming, datetime.now(UTC))
        match checked:
            case Accepted(command, sender):
                self._execute_and_reply(command, sender)
            case Refused(code, msg, sender):
                log.warning(f"control: {sender.command!r} refused: {code}")
                self._reply(Outcome(msg, code), sender)
            case None:
                pass

    def _execute_and_reply(self, command: Command, sender: ReturnAddress) -> None:
        def answer(outcome: Outcome) -> None:
            log.info(f"control: {command.name}: {outcome.code}")
            self._reply(outcome, sender)

        match self._execute(command):
            case Later(start):
                log.info(f"control: {command.name}: begun")
                start(answer)
            case outcome:
                answer(outcome)
                if outcome.then:
                    outcome.then()

    def _reply(self, outcome: Outcome, sender: ReturnAddress) -> None:
        reply = Reply(
            device=self._device_id,
            command=sender.command,
            id=sender.request_id,
            ok=outcome.ok,
            code=outcome.code,
            msg=outcome.msg,
            result=outcome.result,
        )
        outgoing = Outgoing.of(self._device_id, reply, time.monotonic())
        self._post(replace(outgoing, topic=sender.topic or outgoing.topic, correlation=sender.correlation))

    def _too_many(self, incoming: Incoming) -> None:
        name = shown(incoming.topic.rpartition("/")[2])
        log.warning(f"control: {name!r} dropped: {CAPACITY} other commands wait")
