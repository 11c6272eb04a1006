import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator

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


class Later:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something then."""
        self._due.append((self.now_s + seconds, work))

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        due, self._due = self._due, []
        for at_s, work in due:
            if at_s <= self.now_s:
                work()
            else:
                self._due.append((at_s, work))


@pytest.fixture
def flood() -> tuple[logging.Logger, io.StringIO, Later]:
    """A log with the filter and a clock of its own."""
    stream, later = io.StringIO(), Later()
    handler = logging.StreamHandler(stream)
    handler.addFilter(log.FloodFilter(lambda: later.now_s, later.after))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    logging.getLogger("agent").setLevel(logging.NOTSET)  # another test may have set it
    return logging.getLogger("agent.mqtt.command_threads"), stream, later


def refuse(logger: logging.Logger, count: int) -> None:
    """Log from one place in the program."""
    for number in range(count):
        logger.warning(f"refused {number}")


def test_a_flood_writes_a_few_lines_a_minute_and_says_how_many_it_left_out(
    flood: tuple[logging.Logger, io.StringIO, Later],
) -> None:
    """Lines of another kind are not concerned, and the next minute begins anew."""
    logger, stream, later = flood
    refuse(logger, 75_800)
    logger.warning("something else")
    lines = stream.getvalue().splitlines()
    assert lines == [*(f"refused {number}" for number in range(log.LINES_A_MINUTE)), "something else"]
    later.passes(60.0)
    assert stream.getvalue().splitlines()[len(lines) :] == [
        "left out 75,780 lines of one kind within a minute; the last: refused 75799"
    ]
    refuse(logger, 2)
    assert stream.getvalue().endswith("refused 0\nrefused 1\n")


def test_a_few_lines_now_and_then_are_all_written(flood: tuple[logging.Logger, io.StringIO, Later]) -> None:
    """For as long as the agent runs."""
    logger, stream, later = flood
    for _ in range(10):
        refuse(logger, log.LINES_A_MINUTE)
        later.passes(60.0)
    assert len(stream.getvalue().splitlines()) == 10 * log.LINES_A_MINUTE


def test_a_traceback_is_written_once_a_minute(flood: tuple[logging.Logger, io.StringIO, Later]) -> None:
    """It has many lines."""
    logger, stream, later = flood
    for number in range(10):
        logger.error("a fault", exc_info=ValueError(f"number {number}"))
    later.passes(60.0)
    assert stream.getvalue().count("ValueError") == 1
    assert "left out 9 lines" in stream.getvalue()


def test_utterances_and_what_a_developer_asked_for_are_not_counted(
    flood: tuple[logging.Logger, io.StringIO, Later],
) -> None:
    """Speech sets the pace of the one, and `debug` is to show everything."""
    logger, stream, _later = flood
    for number in range(100):
        logging.getLogger("agent.mqtt.publisher").info(f"utterance {number}")
        logger.debug(f"detail {number}")
    assert len(stream.getvalue().splitlines()) == 200
