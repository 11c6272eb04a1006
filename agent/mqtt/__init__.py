"""Where messages go: an MQTT broker (`mqtt`) and standard output (`stdout`)."""

from typing import Protocol

from agent.messages import Message


class Sink(Protocol):
    """Takes messages away.

    `send` is called from the transcribe thread and from the main thread; it never blocks on the network. `close` is
    called once by the composition root, after the last `send`.
    """

    def send(self, message: Message) -> None:
        """Accept a message for delivery."""

    def close(self, timeout_s: float) -> int:
        """Deliver what is waiting, for at most `timeout_s`, and let go; return how many messages are lost."""
