"""Where messages go: an MQTT broker (`mqtt`) and standard output (`stdout`)."""

from typing import Protocol

from agent.messages import Message


class Sink(Protocol):
    """Receives messages.

    The threads `transcribe` and `main` call `send`, which never blocks on the network. `app.py` calls `close` once,
    after the last `send`.
    """

    def send(self, message: Message) -> None:
        """Accept a message for delivery."""

    def close(self, timeout_s: float) -> int:
        """Deliver waiting messages for at most `timeout_s`, and stop; return how many messages are lost."""
