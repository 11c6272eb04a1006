"""An engine without recognition: it answers from a list."""

import time
from typing import TYPE_CHECKING

from agent.asr.transcript import Segment, Transcript
from agent.audio.frames import Utterance
from agent.errors import EngineError

if TYPE_CHECKING:
    from agent.config.settings import ScriptedSettings


class Scripted:
    """Answers the n-th utterance with the n-th text, from the start again after the last one.

    Implements `agent.asr.Engine`. For trying a broker, a dashboard or an automation without a model.
    """

    def __init__(self, settings: "ScriptedSettings") -> None:
        self._settings = settings
        self._answered = 0
        self._closed = False

    def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the next text after `delay_s`; an empty script hears nothing.

        Raises:
            EngineError: the engine is closed.
        """
        if self._closed:
            raise EngineError("the scripted engine is closed: create a new one")
        began_ns = time.monotonic_ns()
        time.sleep(self._settings.delay_s)
        text = self._next_text().strip()
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

    def _next_text(self) -> str:
        texts = self._settings.texts
        if not texts:
            return ""
        text = texts[self._answered % len(texts)]
        self._answered += 1
        return text

    def close(self) -> None:
        """Refuse further utterances."""
        self._closed = True
