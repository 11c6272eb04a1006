import io
import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from agent import log


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Handlers and levels are put back."""
    root, ours = logging.getLogger(), logging.getLogger("agent")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def written(level: str, environment: dict[str, str]) -> io.StringIO:
    """Configure logging into a buffer."""
    stream = io.StringIO()
    log.configure(level, stream, environment)
    return stream


def test_people_see_time_level_and_message() -> None:
    """One plain line, no colours."""
    stream = written("info", {})
    logging.getLogger("agent.x").info("listening")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO listening\n", stream.getvalue())


def test_the_journal_gets_priorities() -> None:
    """Each line of a message carries its priority, and no time, which the journal knows better."""
    stream = written("debug", {"JOURNAL_STREAM": "8:1"})
    logger = logging.getLogger("agent.x")
    logger.debug("a")
    logger.info("b")
    logger.warning("c\nd")
    logger.error("e")
    assert stream.getvalue() == "<7>a\n<6>b\n<4>c\n<4>d\n<3>e\n"


def test_the_level_holds_for_us_and_others_stay_quiet() -> None:
    """`debug` is ours alone: paho would write payloads into the log."""
    stream = written("debug", {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("paho").debug("what was said")
    logging.getLogger("paho").info("chatter")
    logging.getLogger("paho").warning("trouble")
    assert stream.getvalue() == "<4>trouble\n"
    stream = written("error", {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("agent.x").warning("unimportant")
    assert stream.getvalue() == ""


def test_configuring_twice_writes_once() -> None:
    """A reload does not double every line."""
    written("info", {})
    stream = written("info", {})
    logging.getLogger("agent.x").info("once")
    assert stream.getvalue().count("once") == 1


def test_warnings_of_libraries_go_the_same_way() -> None:
    """They do not break into standard error in a form of their own."""
    stream = written("info", {"JOURNAL_STREAM": "8:1"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    assert stream.getvalue().startswith("<4>")
    assert "deprecated" in stream.getvalue()
