"""What goes out because something came in: the replies to commands (contract 1, as in `agent.messages`)."""

from typing import Any, Final, Literal

from agent.messages import CONTRACT, Message

REPLIES: Final = f"edgescribe/v{CONTRACT}/_reply"
"""The only part of the contract's topics that a request may name for its reply."""
HOME_ASSISTANT: Final = "homeassistant"
"""Home Assistant's own discovery prefix, which also has its `status`."""
MAX_REPLY_TOPIC_BYTES: Final = 1_024
MAX_REPLY_TOPIC_LEVELS: Final = 100
"""mosquitto hangs up on a client that publishes to a topic of more than 200 levels."""


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


def may_carry_reply(topic: str, discovery_prefix: str) -> bool:
    """Whether a reply may go to `topic`, which a request has named.

    A reply must not look like another message of a device or a discovery message. It must not be a command either: a
    device might obey it. Nor may it end our connection, as a pattern or an unprintable topic does.
    """
    ours = any(_is_below(topic, tree) for tree in ("edgescribe", HOME_ASSISTANT, discovery_prefix))
    if topic.startswith("$") or (ours and not _is_below(topic, REPLIES)) or "/cmd/" in topic:
        return False
    spelt = topic.isprintable() and "+" not in topic and "#" not in topic
    return spelt and len(topic.encode()) <= MAX_REPLY_TOPIC_BYTES and topic.count("/") < MAX_REPLY_TOPIC_LEVELS


def _is_below(topic: str, tree: str) -> bool:
    return topic == tree or topic.startswith(f"{tree}/")
