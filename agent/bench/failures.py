"""Which failures still stand when all is told. Pure."""

from collections.abc import Iterable

from agent.bench.records import (
    Failure,
    IdleMeasurement,
    LatencyBlock,
    LatencyMeasurement,
    Measurement,
    Record,
    StreamBlock,
    SystemStart,
)

_Key = tuple[str, str, str, int, int | None]


def standing(records: Iterable[Record]) -> tuple[Failure, ...]:
    """Failures that nothing later in the journal has made good, as a resumed run may; each one once, as it was last."""
    left: dict[_Key, Failure] = {}
    for record in records:
        if isinstance(record, Failure):
            key = (record.system, record.set_name, record.clip_id, record.repeat, record.block)
            left.pop(key, None)
            left[key] = record
        else:
            for key in _makes_good(record):
                left.pop(key, None)
    return tuple(left.values())


def _makes_good(record: Record) -> list[_Key]:
    match record:
        case Measurement() | LatencyMeasurement():
            return [(record.system, record.set_name, record.clip_id, record.repeat, None)]
        case LatencyBlock():
            # Earlier versions did not say which block had failed.
            return [(record.system, "", "", record.repeat, block) for block in (record.block, None)]
        case StreamBlock():
            return [(record.system, record.room, "", record.repeat, record.block)]
        case IdleMeasurement():
            return [(record.system, "", "", record.repeat, None)]
        case SystemStart():
            return [(record.system, "", "", 0, None)]
    return []
