"""What the command `replay` answers. Pure."""

from typing import Any

from agent.mqtt.delivery import Replay, SeqRange
from agent.mqtt.outcome import Outcome


def outcome_of(replay: Replay) -> Outcome:
    """`ok` if all of it goes again, `partial` if some does, `not_available` if nothing does."""
    if replay.still_waiting:
        return Outcome(f"{replay.still_waiting} of an earlier replay have not gone yet: ask again", "busy")
    result: dict[str, Any] = {"replayed": replay.again, "missing": [_as_json(one) for one in replay.missing]}
    if replay.available:
        result["available"] = _as_json(replay.available)
    if not replay.again:
        return Outcome("none of these is kept any more", "not_available", result)
    msg = f"{replay.again} will be sent again"
    return Outcome(f"{msg}, others are not kept", "partial", result) if replay.missing else Outcome(msg, result=result)


def _as_json(one: SeqRange) -> dict[str, int]:
    return {"from": one.first, "to": one.last}
