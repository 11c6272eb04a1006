"""What goes out because something came in: the replies to commands (contract 1, as in `agent.wire`)."""

from typing import Any, Literal

from agent.wire import CONTRACT, Message


class Reply(Message):
    """What became of a command. Goes to the request's Response Topic (MQTT 5) where it has one."""

    topic = "reply"
    qos = 1
    retained = False
    expiry_s = 60
    kept = False
    schema_name = "reply/1"

    v: Literal[1] = CONTRACT
    device: str
    """Who answers: a group has many members."""
    command: str
    id: str | None = None
    """That of the request, if it had one."""
    ok: bool
    code: str
    """`ok`, or why not: `invalid`, `not_allowed`, … (docs/mqtt.md has them all)."""
    msg: str
    """The same for people."""
    result: dict[str, Any] | None = None
    """What the command brought, by command."""
