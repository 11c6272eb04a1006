"""The settings of the governor: a part of `config.Settings`."""

from typing import Annotated

from pydantic import Field

from agent.config.section import Section


class GovernorSettings(Section):
    """What gives way, step by step, where the device is hot, throttled, under-powered, short of memory or behind."""

    enabled: bool = True
    """First no decoding ahead, then a window that follows the utterance, then smaller models; and back again. Without,
    a device that cannot keep up drops the oldest utterances. What counts as hot is `telemetry.hot_c`."""
    models: tuple[str, ...] = ()
    """Models that may take over, in this order. Default: those on the device that `edgescribe calibrate` measured to be
    cheaper; where it did not run, one of each smaller size."""
    floor: str = ""
    """Model below which the device never goes. Default: the cheapest."""
    queue_age_s: Annotated[float, Field(ge=1.0, le=600.0)] = 10.0
    """Seconds that an utterance may wait for the engine. Steps are taken before it comes to that."""
    down_after_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 60.0
    """Seconds that a step taken for heat, power or memory gets to show what it does, before the next one is taken."""
    up_after_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 300.0
    """Seconds without trouble, and since the last step, after which it goes one step up again. Doubled each time that a
    step up had to be taken back."""
    spool_mib: Annotated[int, Field(ge=0, le=4_096)] = 32
    """Room in MiB, in the state folder, for utterances for which even the lowest step has no time (32 are 17 minutes of
    speech); they are transcribed when there is time, and published on `transcript/backlog`. 0, or a
    `publish.privacy` other than `full`: they are dropped instead. No sound is stored otherwise."""
