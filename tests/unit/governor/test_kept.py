import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agent.audio import Utterance
from agent.channel import Overflow
from agent.config import ScriptedSettings
from agent.engines.scripted import Scripted
from agent.errors import EngineError
from agent.governor.keeper import Keeper
from agent.governor.spool import Spool
from agent.governor.steering import Governed, Reach, Steering
from agent.publishing.publisher import Publisher
from agent.transcriber import NoTimeError, Transcriber

SPOKEN = Utterance("01A", np.zeros(32_000, np.int16), 0, 0, 30_000, 32_000)


def steering(spool: Spool, answers: list[EngineError], given_up: list[str]) -> Steering:
    """One whose engine answers like this; what it gives up is written down."""

    def probe(_utterance: Utterance, _timeout_s: float) -> None:
        raise answers.pop(0)

    transcriber = SimpleNamespace(probe=probe, waiting=0)
    publisher = SimpleNamespace(failed=lambda utterance, _error: given_up.append(utterance.id))
    reach = Reach(
        Governed(),
        settings=lambda: cast("Any", None),
        changing=contextlib.nullcontext(),
        load_engine=lambda _settings: Scripted(ScriptedSettings()),
        transcriber=cast("Transcriber", transcriber),
        keeper=cast("Keeper", None),
        spool=spool,
        publisher=cast("Publisher", publisher),
        tell=lambda: None,
    )
    return Steering(reach, lambda _worker: None)


def test_what_the_engine_has_no_time_for_is_kept_however_often(tmp_path: Path) -> None:
    """It is not the utterance's fault; only what the engine itself fails on twice is given up."""
    spool, given_up = Spool(tmp_path, 100_000), list[str]()
    spool.put(SPOKEN)
    answers = [*(NoTimeError("behind") for _ in range(5)), EngineError("no"), NoTimeError("behind"), EngineError("no")]
    late = steering(spool, answers, given_up)
    while len(answers) > 1:
        late._transcribe_kept()
        assert (len(spool), given_up) == (1, [])
    late._transcribe_kept()
    assert (len(spool), given_up) == (0, ["01A"])


def test_a_full_or_closed_queue_is_no_failure_of_the_engine() -> None:
    """Whoever asks for a probe can tell one from the other."""
    transcriber = Transcriber(Scripted(ScriptedSettings()), Keeper(cast("Any", None), None), 1, Overflow.DROP_OLDEST)
    with pytest.raises(NoTimeError):
        transcriber.probe(SPOKEN, 0.01)
    transcriber.submit(SPOKEN)
    with pytest.raises(NoTimeError):
        transcriber.probe(SPOKEN, 0.01)
    transcriber.close()
