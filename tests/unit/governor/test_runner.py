import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agent.asr.scripted import Scripted
from agent.asr.transcriber import NoTimeError, Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.config.settings import ScriptedSettings
from agent.errors import EngineError
from agent.governor.runner import Governed, GovernorRunner
from agent.governor.spool import Spool
from agent.segmenter import Ended

SPOKEN = Utterance("01A", np.zeros(32_000, np.int16), 0, 0, 30_000, 32_000)


def runner(spool: Spool, recipient: SimpleNamespace, probe: Callable[[Utterance, float], Transcript]) -> GovernorRunner:
    """One whose engine answers like this."""
    transcriber = Transcriber(Scripted(ScriptedSettings()), cast("Any", recipient), 1, Overflow.DROP_OLDEST, spool.put)
    transcriber.probe = probe  # type: ignore[method-assign, assignment]
    return GovernorRunner(
        Governed(),
        settings=lambda: cast("Any", None),
        changing=contextlib.nullcontext(),
        load_engine=lambda _settings: Scripted(ScriptedSettings()),
        transcriber=transcriber,
        recipient=cast("Any", recipient),
        spool=spool,
        conditions=lambda _prefix, _codes: None,
        applied=lambda: None,
        on_failure=lambda _worker: None,
    )


def test_what_the_engine_has_no_time_for_is_kept_however_often(tmp_path: Path) -> None:
    """It is not the utterance's fault; only what the engine itself fails on twice is given up."""
    spool, given_up = Spool(tmp_path, 100_000), list[str]()
    spool.put(SPOKEN)
    answers = [*(NoTimeError("behind") for _ in range(5)), EngineError("no"), NoTimeError("behind"), EngineError("no")]

    def probe(_utterance: Utterance, _timeout_s: float) -> Transcript:
        raise answers.pop(0)

    late = runner(spool, SimpleNamespace(failed=lambda utterance, _error: given_up.append(utterance.id)), probe)
    while len(answers) > 1:
        late._transcribe_kept()
        assert (len(spool), given_up) == (1, [])
    late._transcribe_kept()
    assert (len(spool), given_up) == (0, ["01A"])


def test_what_is_purged_while_the_engine_has_it_is_told_to_nobody(tmp_path: Path) -> None:
    """Its file is gone already, and so are its words."""
    spool, told = Spool(tmp_path, 100_000), list[str]()
    recipient = SimpleNamespace(recognised=lambda utterance, *_words, **_late: told.append(utterance.id))

    def probe(utterance: Utterance, _timeout_s: float) -> Transcript:
        if utterance.id == "01A":
            assert late.transcriber.forget() == 0
            assert spool.purge() == 1
            spool.put(replace(SPOKEN, id="01B", started_ns=time.monotonic_ns()))  # said after it
        return Transcript(utterance.id, "words", "en", (), "scripted", "scripted", 1.0, 0)

    spool.put(SPOKEN)
    late = runner(spool, recipient, probe)
    late._transcribe_kept()
    assert (told, len(spool)) == (["01B"], 0)


def test_what_cannot_be_read_any_more_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    """Its file is damaged: it is given up, and the next one gets its words."""
    spool, told = Spool(tmp_path, 200_000), list[str]()
    recipient = SimpleNamespace(
        recognised=lambda utterance, *_words, **_late: told.append(utterance.id),
        lost=lambda utterance, why: told.append(f"{utterance.id}: {why}"),
    )
    for name in ("01A", "01B"):
        spool.put(replace(SPOKEN, id=name))
    (tmp_path / "spool" / "01A.npz").write_bytes(b"x" * 500)
    words = Transcript("01B", "words", "en", (), "scripted", "scripted", 1.0, 0)
    runner(spool, recipient, lambda _utterance, _timeout_s: words)._transcribe_kept()
    reason = "it was kept until there was time, and its file is not what was written (ValueError)"
    assert (told, len(spool)) == ([f"01A: {reason}", "01B"], 0)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_full_or_closed_queue_is_no_failure_of_the_engine() -> None:
    """Whoever asks for a probe can tell one from the other."""
    transcriber = Transcriber(
        Scripted(ScriptedSettings()), cast("Any", None), 1, Overflow.DROP_OLDEST, keep=lambda _utterance: True
    )
    with pytest.raises(NoTimeError):
        transcriber.probe(SPOKEN, 0.01)
    transcriber.heard(Ended(SPOKEN))
    with pytest.raises(NoTimeError):
        transcriber.probe(SPOKEN, 0.01)
    transcriber.close()
