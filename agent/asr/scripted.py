"""An engine without recognition: it answers from a list."""

import time
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from agent.asr.transcript import Segment, Transcript
from agent.audio.frames import Utterance
from agent.errors import EngineError

if TYPE_CHECKING:
    from agent.config.settings import ScriptedSettings


class Scripted:
    """Answers the n-th utterance with the n-th text, and starts again after the last one.

    Implements `agent.asr.Engine`. For trying a broker, a dashboard or an automation without a model.
    """

    batch_size = 1

    def __init__(self, settings: "ScriptedSettings") -> None:
        self._settings = settings
        self._texts = cycle(settings.texts or ("",))
        self._closed = False

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `agent.asr.Engine`. Each answer comes after `delay_s`."""
        if self._closed:
            raise EngineError("the scripted engine is closed: create a new one")
        return [self._answer(utterance) for utterance in utterances]

    def _answer(self, utterance: Utterance) -> Transcript:
        began_ns = time.monotonic_ns()
        time.sleep(self._settings.delay_s)
        text = next(self._texts).strip()
        return Transcript(
            utterance_id=utterance.id,
            text=text,
            language=self._settings.language,
            segments=(Segment(0.0, utterance.duration_s, text),) if text else (),
            engine="scripted",
            model="scripted",
            inference_s=(time.monotonic_ns() - began_ns) / 1e9,
            audio_ctx=0,
        )

    def close(self) -> None:
        """Refuse further utterances."""
        self._closed = True
