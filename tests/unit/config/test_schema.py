import json
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr

from agent.config.schema import by_path, groups, shared, walk
from agent.config.settings import Settings
from agent.config.types import InWords, Section


class Example(Section):
    """Of every sort one."""

    between: Annotated[int, Field(ge=1, le=9)] = 5
    above: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    least: Annotated[float, Field(ge=0.0)] | None = None
    word: Literal["one", "two"] = "one"
    shape: Annotated[str, Field(pattern="^a+$"), InWords('"a", once or more')] | None = None
    many: tuple[str, ...] = ()
    secret: SecretStr | None = None
    needed: bool


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("between", "a whole number, 1 to 9"),
        ("above", "a number, above 0, at most 1"),
        ("least", "a number, at least 0"),
        ("word", "one of one, two"),
        ("shape", '"a", once or more'),
        ("many", "a list of text"),
        ("secret", "secret text"),
        ("needed", "true or false"),
    ],
)
def test_what_is_allowed_is_said_in_words(key: str, allowed: str) -> None:
    """Types and bounds, optional or not, as a person would say them."""
    (group,) = walk(Example)
    (setting,) = [setting for setting in group.settings if setting.key == key]
    assert setting.allowed == allowed
    assert setting.secret == (key == "secret")
    assert setting.required == (key == "needed")


def test_no_pattern_is_shown_to_people() -> None:
    """Wherever a setting has one, it says in words what it wants: a regular expression is no remedy."""
    sections = Settings.model_json_schema()["$defs"].values()
    patterned = {
        (section["description"], key)
        for section in sections
        for key, value in section.get("properties", {}).items()
        if '"pattern"' in json.dumps(value)
    }
    said = {(group.description, setting.path[-1]): setting.allowed for group in groups() for setting in group.settings}
    assert len(patterned) >= 7
    assert [key for key in patterned if said[key] == "text"] == []


def test_every_kind_of_a_section_is_a_group() -> None:
    """The engines are told apart by `kind`, and each has its own settings."""
    engines = {group.kind: group for group in groups() if group.path == ("engine",)}
    assert set(engines) == {"whisper_cpp", "faster_whisper", "auto", "scripted"}
    assert "engine.batch_size" in {setting.key for setting in engines["faster_whisper"].settings}
    assert "engine.batch_size" not in {setting.key for setting in engines["whisper_cpp"].settings}
    assert len(by_path(("engine", "model"))) == 2


def test_a_key_is_shared_if_both_kinds_have_it_in_the_same_form() -> None:
    """Threads mean the same to both engines; a model, or another engine's idea of a language, does not."""
    assert shared(("engine", "threads"), "whisper_cpp", "faster_whisper")
    assert not shared(("engine", "model"), "whisper_cpp", "faster_whisper")
    assert not shared(("engine", "beam_size"), "whisper_cpp", "faster_whisper")
    assert not shared(("engine", "language"), "whisper_cpp", "scripted")
