import math
from dataclasses import replace

import pytest

from agent.asr.transcript import Transcript, Verdict
from agent.config.settings import PublishSettings
from agent.messages.privacy import PublishPolicy

SAID = Transcript("u", "lights on", "en", (), "scripted", "scripted", 0.1, 0)


def sure(probability: float) -> Transcript:
    """Words whose tokens had this probability, in the geometric mean."""
    return replace(SAID, avg_logprob=math.log(probability))


def test_words_of_which_the_engine_was_less_sure_do_not_count() -> None:
    """The bound itself is enough; without a bound everything is."""
    policy = PublishPolicy(min_confidence=0.5)
    assert [policy.accepts(sure(value)) for value in (0.49, 0.51, 1.0)] == [False, True, True]
    assert PublishPolicy().accepts(sure(1e-9))


def test_an_engine_that_does_not_tell_is_believed() -> None:
    """Nothing is known against it."""
    assert PublishPolicy(min_confidence=1.0).accepts(SAID)


@pytest.mark.parametrize("heard", [replace(SAID, text=""), replace(SAID, verdict=Verdict.REJECTED)])
def test_no_words_are_no_words(heard: Transcript) -> None:
    """Whatever the bound."""
    assert not PublishPolicy().accepts(heard)


def test_doubtful_words_are_words() -> None:
    """The verdict goes with the message; who wants only confident ones can tell."""
    assert PublishPolicy().accepts(replace(SAID, verdict=Verdict.DOUBTFUL))


@pytest.mark.parametrize(
    ("privacy", "text", "keywords", "transcribes"),
    [("full", True, ("lights on",), True), ("keywords", False, ("lights on",), True), ("off", False, (), False)],
)
def test_what_leaves_the_device(privacy: str, text: bool, keywords: tuple[str, ...], transcribes: bool) -> None:  # noqa: FBT001 - columns
    """Text only with `full`, keywords with `keywords` as well, and with `off` nobody even listens to the words."""
    settings = PublishSettings.model_validate({"privacy": privacy, "keywords": ["lights on", "heater"]})
    policy = PublishPolicy.of(settings)
    assert (policy.publishes_text, policy.keywords(SAID), policy.transcribes) == (text, keywords, transcribes)
