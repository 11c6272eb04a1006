"""One line of what a running agent tells `edgescribe top`. Both are of one release; fields may come and go with it."""

from pydantic import ConfigDict

from agent import messages as wire
from agent.messages import GovernorState, Instant, Latency
from agent.messages.telemetry import TelemetryMessage


class Part(wire.Part):
    """Fields without a value are left out. Unknown fields are ignored: the agent may be newer than this program."""

    model_config = ConfigDict(extra="ignore")


class Sound(Part):
    """The microphone, since the line before."""

    rms_dbfs: float | None = None
    peak_dbfs: float | None = None
    noise_floor_dbfs: float | None = None
    speech_prob: float | None = None
    """The highest of the frames, in [0, 1]."""


class UnderWay(Part):
    """What the engine works on."""

    duration_s: float
    """Length of the utterance."""
    since_s: float
    """How long it has been at it."""


class Last(Part):
    """The last utterance that was published with its text."""

    ago_s: float
    text: str
    verdict: str
    duration_s: float
    rtf: float
    latency_ms: Latency


class Glance(Part):
    """This moment."""

    at: Instant
    device: str
    agent: str
    """Version of edgescribe."""
    source: str
    engine: str
    model: str
    language: str
    listening: bool
    shows_text: bool
    """Whether `publish.privacy` lets words leave the pipeline."""
    sound: Sound
    speaking_s: float | None = None
    """For how long somebody has been speaking; None if nobody is."""
    partial: str | None = None
    """What was understood of it so far, where `publish.partials` is on."""
    under_way: UnderWay | None = None
    last: Last | None = None
    governor: GovernorState | None = None
    """Which step of its ladder the device is on; None where there is none."""
    health: tuple[str, ...] = ()
    """What is wrong, as codes."""
    telemetry: TelemetryMessage
    """As it would be published now; at most a second old."""
