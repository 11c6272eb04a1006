"""The agent's side of `edgescribe top`: a sink that remembers, and what it tells who looks."""

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agent import __version__
from agent.asr.transcriber import Transcriber
from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.messages import Message
from agent.messages.telemetry import TelemetryMessage
from agent.mqtt.publisher import Publisher
from agent.segmenter import Listener
from agent.telemetry.naming import source_name
from agent.terminal.meter import LevelMeter
from agent.terminal.recent import Memory, Remembered
from agent.terminal.snapshot import Glance, Last, Sound, UnderWay
from agent.terminal.socket_address import own_path
from agent.terminal.socket_server import TopServer
from agent.worker import Worker

log = logging.getLogger(__name__)

SURVEY_EVERY_S: Final = 1.0


class TopSink:
    """Is told what is published, as other sinks are, and keeps the last of it for who looks.

    That costs a reference a message. Levels are measured, and the machine is looked at, only while somebody looks.
    Without a socket (the folder cannot be written, or another agent listens there) it says so once and does nothing.
    """

    def __init__(
        self,
        settings: Settings,
        device_id: str,
        *,
        listener: Listener,
        transcriber: Transcriber,
        publisher: Publisher,
        survey: Callable[[], TelemetryMessage],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._settings = settings
        self._device_id = device_id
        self._listener = listener
        self._transcriber = transcriber
        self._publisher = publisher
        self._survey = survey
        self._surveyed: TelemetryMessage | None = None
        self._surveyed_s = 0.0
        self._memory = Memory()
        self._meter = LevelMeter()
        path = own_path(state_dir(settings), os.environ)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._server: TopServer | None = TopServer(path, self._line, self._watched, on_failure)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            log.warning(f"top: no socket at {path} ({reason}): `edgescribe top` shows nothing")
            self._server = None

    def send(self, message: Message) -> None:
        """Remember the last of each kind."""
        self._memory.remember(message, time.monotonic())

    def close(self, timeout_s: float) -> int:  # noqa: ARG002 - nobody waits for a viewer
        """Hang up; nothing is lost by it."""
        if self._server and not self._server.close():
            log.warning("top: its thread did not end")
        return 0

    # Called from the thread `top`.

    def _watched(self, watched: bool) -> None:  # noqa: FBT001 - the callback's whole content
        self._meter.take()
        self._listener.observer = self._meter.hear if watched else None

    def _line(self) -> bytes:
        now_s = time.monotonic()
        return self._glance(self._memory.latest, now_s).model_dump_json(exclude_none=True).encode() + b"\n"

    def _glance(self, remembered: Remembered, now_s: float) -> Glance:
        engine, state = self._settings.engine, remembered.state
        speaking_s = remembered.speaking_since_s
        under_way = self._transcriber.under_way
        return Glance(
            at=datetime.now(UTC),
            device=self._device_id,
            agent=__version__,
            source=source_name(self._settings),
            engine=state.engine if state else engine.kind,
            model=state.model if state else engine.kind,
            language=state.language if state else "",
            listening=state.listening if state else True,
            shows_text=self._publisher.policy.publishes_text,
            sound=self._sound(),
            speaking_s=None if speaking_s is None else round(now_s - speaking_s, 1),
            partial=remembered.partial.text if remembered.partial else None,
            under_way=UnderWay(duration_s=under_way.duration_s, since_s=round(now_s - under_way.since_s, 2))
            if under_way
            else None,
            last=_last(remembered, now_s),
            governor=state.governor if state else None,
            health=self._publisher.problems,
            telemetry=self._telemetry(now_s),
        )

    def _telemetry(self, now_s: float) -> TelemetryMessage:
        """The machine is looked at once a second, however often lines are sent."""
        if self._surveyed is None or now_s - self._surveyed_s >= SURVEY_EVERY_S:
            self._surveyed, self._surveyed_s = self._survey(), now_s
        return self._surveyed

    def _sound(self) -> Sound:
        heard, floor_dbfs = self._meter.take(), self._listener.noise_floor_dbfs
        return Sound(
            rms_dbfs=heard.rms_dbfs if heard else None,
            peak_dbfs=heard.peak_dbfs if heard else None,
            noise_floor_dbfs=None if floor_dbfs is None else round(floor_dbfs, 1),
            speech_prob=heard.speech_prob if heard else None,
        )


def _last(remembered: Remembered, now_s: float) -> Last | None:
    if (said := remembered.transcript) is None:
        return None
    return Last(
        ago_s=round(now_s - remembered.said_s, 1),
        text=said.text,
        verdict=said.verdict,
        duration_s=said.duration_s,
        rtf=said.rtf,
        latency_ms=said.latency_ms,
    )
