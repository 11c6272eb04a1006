import pytest

from agent.publishing.keywords import keyword_rules, keywords_in


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("heater", "Turn the HEATER off."),
        ("heater off", "Heater... off!"),
        ("straße", "Auf der STRASSE"),
        ("/lights? (on|off)/", "Please, Light On"),
        ("lamp=/lights? on/", "lights on"),
        ("lamp=light on", "Light, on."),
    ],
)
def test_keywords_are_found_whatever_their_case_and_punctuation(entry: str, text: str) -> None:
    """Whisper writes capitals and commas as it likes; they decide nothing."""
    (rule,) = keyword_rules([entry])
    assert keywords_in(text, [rule]) == (rule.name,)


@pytest.mark.parametrize(
    ("entry", "text"), [("heat", "the heater"), ("heater off", "heater is off"), ("/^on$/", "turn on"), ("off", "")]
)
def test_words_are_whole_words(entry: str, text: str) -> None:
    """`heat` is not said by saying `heater`, and a phrase is said in one piece."""
    assert keywords_in(text, keyword_rules([entry])) == ()


def test_a_name_stands_for_its_pattern() -> None:
    """Only the name is published, so that a subscriber does not depend on the wording; a pattern may hold a `=`."""
    rules = keyword_rules(["lamp=/lights? on/", "heater off", "/a=b/"])
    assert [rule.name for rule in rules] == ["lamp", "heater off", "/a=b/"]


def test_all_that_match_are_told_in_the_order_of_the_settings() -> None:
    """Two rules may match one text."""
    assert keywords_in("light on, heater off", keyword_rules(["off", "heater", "on"])) == ("off", "heater", "on")


@pytest.mark.parametrize("entries", [[""], ["..."], ["/(/"], ["a=/x/", "a=/y/"], ["on", "on"]])
def test_what_cannot_be_meant_is_refused(entries: list[str]) -> None:
    """Empty entries, broken expressions and two of a name are mistakes, told at the start."""
    with pytest.raises(ValueError, match="keyword"):
        keyword_rules(entries)
