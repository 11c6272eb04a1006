from pathlib import Path

import pytest

from agent.bench.records import SystemSetup
from agent.bench.resuming import news, refuse_others, setup_of, unknown
from agent.bench.systems import parse_system, with_threads
from agent.errors import ConfigError

OUT = Path("results")
SETUP = SystemSetup("whisper_cpp:m", {"threads": "1", "context": "follow"}, "aaaa")


@pytest.mark.parametrize(
    ("settings", "digest", "complaint"),
    [
        ({"threads": "2", "context": "follow"}, "aaaa", "threads 1, not 2"),
        ({"threads": "1", "context": "full"}, "aaaa", "context follow, not full"),
        ({"threads": "1"}, "bbbb", "digest aaaa…, not bbbb…"),
    ],
)
def test_what_differs_is_named(settings: dict[str, str], digest: str, complaint: str) -> None:
    """Threads, what an engine does by default, and the weights: none of it is in the name."""
    with pytest.raises(ConfigError, match=complaint):
        refuse_others(OUT, [SETUP], [SystemSetup(SETUP.system, settings, digest)])


def test_a_setting_that_one_version_has_not_is_no_difference() -> None:
    """A run may go on with a newer version that can do more."""
    refuse_others(OUT, [SETUP], [SystemSetup(SETUP.system, {"threads": "1", "new": "off"}, "aaaa")])
    assert news([SETUP], [SETUP]) == []
    assert unknown([SETUP], [SETUP]) == []


def test_all_settings_of_our_engines_are_written_down() -> None:
    """Also those that nobody named; of a peer, what it is told."""
    ours = setup_of(with_threads(parse_system("whisper_cpp:tiny.en-q8_0"), 3), "aaaa").settings
    assert ours["threads"] == "3"
    assert "context" in ours
    assert "language" not in ours
    assert setup_of(parse_system("stock-faster-whisper:m:beam=1"), "").settings == {"beam": "1"}
    assert setup_of(parse_system("whisper_cpp:m:context=nonsense"), "").settings == {"context": "nonsense"}
