import io

from rich.console import Console

from agent.calibrate.report import print_calibration
from agent.models.calibration import Skipped
from tests.calibrations import calibration, measurement


def printed(width: int) -> str:
    """A report of two candidates and one that was left out."""
    document = calibration(
        measurement("whisper_cpp", "tiny.en-q8_0", errors=1, latency_s=0.34),
        measurement("faster_whisper", "base-ct2", latency_s=0.56, threads=2),
        skipped=[Skipped("whisper_cpp", "small-q8_0", "no time was left for it")],
    )
    text = io.StringIO()
    print_calibration(document, Console(file=text, width=width))
    return text.getvalue()


def test_it_says_what_was_measured_what_not_what_is_chosen_and_why() -> None:
    """Everything that somebody needs to agree or to object."""
    text = printed(120)
    rows = [line.split() for line in text.splitlines()]
    assert ["*", "whisper_cpp", "tiny.en-q8_0", "1", "1", "of", "80", "0.34", "0.113", "0.100", "150"] in rows
    assert ["*", "faster_whisper", "base-ct2", "2", "0", "of", "80", "0.56", "0.187", "0.100", "150"] in rows
    assert "Not measured: whisper_cpp small-q8_0: no time was left for it." in text
    assert "Other programs took 30 % of the CPU meanwhile" in text
    assert "Chosen: faster_whisper base-ct2 with 2 threads." in text
    assert "It gets 0 of 80 words wrong, needs 0.56 s for a sentence" in " ".join(text.split())
    assert "Not whisper_cpp tiny.en-q8_0: tiny is the smaller Whisper" in text


def test_it_fits_into_a_terminal_without_cutting_names() -> None:
    """80 columns, as on a serial console."""
    text = printed(80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "faster_whisper" in text
    assert "tiny.en-q8_0" in text
