from agent.mqtt.command_replay import outcome_of
from agent.mqtt.delivery import Replay, SeqRange


def test_the_answer_says_what_goes_what_does_not_and_what_could() -> None:
    """All, some, none, and not now: each has its code; the ranges are written as they are asked for."""
    here = SeqRange(5, 9)
    outcomes = [
        outcome_of(Replay(3, (), here)),
        outcome_of(Replay(3, (SeqRange(1, 4),), here)),
        outcome_of(Replay(0, (SeqRange(1, 4),), here)),
        outcome_of(Replay(0, (), here, still_waiting=7)),
    ]
    assert [outcome.code for outcome in outcomes] == ["ok", "partial", "not_available", "busy"]
    assert outcomes[1].result == {
        "replayed": 3,
        "missing": [{"from": 1, "to": 4}],
        "available": {"from": 5, "to": 9},
    }
    assert outcome_of(Replay(0, (SeqRange(1, 4),), None)).result == {"replayed": 0, "missing": [{"from": 1, "to": 4}]}
