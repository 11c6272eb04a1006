import tomllib
from pathlib import Path

import pytest

from agent.config.toml import line_of, value
from agent.errors import ConfigError

DOCUMENT = """\
state_dir = "/x"   # top level

[engine]  # a comment
kind = "whisper_cpp"
"threads" = 2
  model=  "x = y"

[mqtt]
tls.enabled = true
[mqtt . tls]
ca_file = "/ca"
[segmenter]
[vad]
inline = { a = 1 }
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("state_dir",), 1),
        (("engine",), 3),
        (("engine", "kind"), 4),
        (("engine", "threads"), 5),
        (("engine", "model"), 6),
        (("mqtt", "tls", "enabled"), 9),
        (("mqtt", "tls", "ca_file"), 11),
        (("segmenter",), 12),
        (("vad", "inline", "a"), 14),
        (("engine", "absent"), None),
        (("kind",), None),
    ],
)
def test_the_line_of_a_key_is_found(path: tuple[str, ...], line: int | None) -> None:
    """Tables, dotted keys, quotes, odd spacing and inline tables; None for what is not there."""
    assert line_of(DOCUMENT, path) == line


@pytest.mark.parametrize(
    "original",
    [
        True,
        3,
        0.5,
        'a "quoted" \\ path\n\u00e9\U0001f600',
        ["a", "b"],
        [1, 2],
        "",
        "# no comment",
        "\x00\x1f\x7f\x80\u2028",
    ],
)
def test_values_survive_the_way_through_toml(original: object) -> None:
    """What is written is what a TOML parser reads."""
    assert tomllib.loads(f"x = {value(original)}") == {"x": original}


def test_what_toml_cannot_hold_is_refused() -> None:
    """None has no form in TOML; writing nonsense would be worse than failing."""
    with pytest.raises(TypeError):
        value(None)


@pytest.mark.parametrize("original", [Path("/srv/mod\udce8les"), ["fine", "\ud800"]])
def test_a_text_that_is_no_unicode_is_refused_in_one_line(original: object) -> None:
    """The bytes of a path need not be UTF-8; a TOML document has to be."""
    with pytest.raises(ConfigError, match="is not UTF-8"):
        value(original)
