import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from agent.bench.records import Failure, Machine, Measurement, SystemStart
from agent.bench.report import print_report, render, write_report
from agent.bench.summary import Report, summarise

OURS, PEER = "whisper_cpp:tiny.en-q8_0", "stock-pywhispercpp:tiny.en-q8_0"
MACHINE = Machine("A <fast> board", 4, 8_000_000_000, "6.12", "3.13", "0.1", {"numpy": "2"}, "edgescribe bench")


def clip(system: str, **changes: object) -> Measurement:
    """A clip in which nothing went wrong, but for `changes`."""
    measurement = Measurement(
        system=system,
        set_name="speech",
        clip_id="1",
        repeat=0,
        language="en",
        reference="turn on the light",
        audio_s=4.0,
        text="turn on a light",
        wall_s=0.4,
        cpu_s=0.8,
        peak_rss_bytes=150_000_000,
        pss_bytes=80_000_000,
    )
    return replace(measurement, **changes)  # type: ignore[arg-type]


@pytest.fixture
def report() -> Report:
    """Two systems, a set of noise, and a peer that is not installed."""
    noise = {"set_name": "noise", "language": "none", "reference": "", "text": "", "clip_id": "n"}
    return summarise(
        [
            MACHINE,
            SystemStart(PEER, 2.0, 40_000_000),
            SystemStart(OURS, 1.0, 40_000_000),
            *(clip(system, **changes) for system in (PEER, OURS) for changes in ({}, noise, {"clip_id": "2"})),
            Failure("openai-whisper:tiny.en-ct2", "not installed: pip install 'edgescribe[peers]'"),
        ],
        PEER,
        resamples=100,
    )


class _Balance(HTMLParser):
    """Collects tags that are opened and not closed, and everything that would be fetched."""

    VOID = frozenset({"meta", "br", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(report: Report) -> None:
    """Every tag is closed, and no other file is asked for: it can be mailed as it is."""
    page = render(report)
    parser = _Balance()
    parser.feed(page)
    assert (parser.open, parser.links) == ([], [])
    assert "@import" not in page
    assert "url(" not in page


def test_plots_are_well_formed(report: Report) -> None:
    """Each SVG parses as XML and stays inside its frame: error rates, and CPU times against the baseline's."""
    plots = re.findall(r"<svg.*?</svg>", render(report), re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        tree = ET.fromstring(plot)  # noqa: S314 - our own output
        _, _, width, height = map(float, tree.attrib["viewBox"].split())
        assert all(0 <= float(dot.attrib["cx"]) <= width for dot in tree.iter("circle"))
        assert all(0 <= float(dot.attrib["cy"]) <= height for dot in tree.iter("circle"))


def test_names_are_escaped(report: Report) -> None:
    """A board's name or a library's message is text, never markup."""
    page = render(report)
    assert "A &lt;fast&gt; board" in page
    assert "<fast>" not in page


def test_every_system_is_on_page_and_in_table(report: Report) -> None:
    """Also the one that did not run, with the remedy in full."""
    output = StringIO()
    print_report(report, Console(file=output, width=100))
    for text in (OURS, PEER, "pip install 'edgescribe[peers]'"):
        assert text in output.getvalue()
    assert OURS in render(report)
    assert "25.00" in output.getvalue()


def test_an_empty_report_renders() -> None:
    """Where nothing could be measured, the page says what did not work."""
    empty = summarise([Failure("a", "no such model")])
    assert "no such model" in render(empty)
    print_report(empty, Console(file=StringIO()))


def test_without_the_page_s_package_there_is_json(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--latency and --idle do without the extra `bench`."""
    assert render(report)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert not write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
