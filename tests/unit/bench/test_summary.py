from dataclasses import replace

import pytest

from agent.bench.records import (
    Delay,
    Failure,
    IdleMeasurement,
    LatencyBlock,
    LeftOut,
    Measurement,
    Record,
    SystemStart,
)
from agent.bench.report import notes, tables
from agent.bench.summary import Report, Row, summarise

OURS, PEER = "whisper_cpp:ours", "stock-pywhispercpp:peer"
SPEECH = Measurement(
    system=OURS,
    set_name="speech",
    clip_id="1",
    repeat=0,
    language="en",
    reference="turn on the light please now",
    audio_s=4.0,
    text="turn on the light please now",
    wall_s=0.4,
    cpu_s=0.8,
    peak_rss_bytes=100,
    pss_bytes=80,
)
NOISE = replace(SPEECH, set_name="noise", clip_id="n", language="none", reference="", text="", audio_s=10.0)
STARTS: list[Record] = [SystemStart(PEER, 2.0, 50), SystemStart(OURS, 1.0, 40)]


def report(*measurements: Measurement, baseline: str | None = PEER) -> Report:
    """Figures of these measurements, after both systems have been loaded."""
    return summarise([*STARTS, *measurements], baseline, resamples=200)


def compared(figures: Report) -> Row:
    """Ours against the baseline."""
    (comparison,) = figures.comparisons
    return comparison


def by_peer(measurement: Measurement, **changes: object) -> Measurement:
    """The same clip through the peer."""
    return replace(measurement, system=PEER, **changes)  # type: ignore[arg-type]


def test_the_error_rate_is_that_of_the_words() -> None:
    """Two of six words wrong is a third, and a system is compared with the baseline on the same clip."""
    figures = report(replace(SPEECH, text="turn off a light please now"), by_peer(SPEECH))
    ours, _ = figures.systems
    difference = compared(figures)["error_rate_difference"]
    assert ours["error_rate"].value == difference.value == pytest.approx(2 / 6)
    assert (compared(figures)["name"], compared(figures)["against"], figures.baseline) == (OURS, PEER, PEER)


def test_seconds_are_medians_over_repeats() -> None:
    """One slow pass of three does not show."""
    walls_s = (0.4, 9.0, 0.5)
    repeats = [replace(SPEECH, repeat=index, wall_s=took_s, cpu_s=2 * took_s) for index, took_s in enumerate(walls_s)]
    (ours,) = report(*repeats, baseline=None).systems
    assert (ours["wall_p50_s"], ours["rtf"]) == (0.5, 0.125)
    assert ours["cpu_rtf"] == 0.25


def test_errors_count_over_all_repeats() -> None:
    """A decoder that is right in one pass of two is half right."""
    (ours,) = report(SPEECH, replace(SPEECH, repeat=1, text=""), baseline=None).systems
    assert ours["error_rate"].value == pytest.approx(0.5)


def test_a_comparison_takes_only_clips_that_both_have() -> None:
    """A clip on which the peer failed makes neither look better."""
    only_ours = replace(SPEECH, clip_id="2", cpu_s=100.0)
    figures = report(SPEECH, only_ours, by_peer(SPEECH, cpu_s=4.0))
    assert figures.systems[0]["clips"] == 2
    assert compared(figures)["clips"] == 1
    assert compared(figures)["cpu_ratio"].value == pytest.approx(0.2)


def test_different_numbers_of_repeats_compare_fairly() -> None:
    """Errors are reckoned a pass: twice as many passes are not twice as many errors."""
    one_wrong = replace(SPEECH, text="turn off the light please now")
    difference = compared(report(one_wrong, replace(one_wrong, repeat=1), by_peer(one_wrong)))["error_rate_difference"]
    assert difference.value == 0.0


def test_invented_words_are_counted_apart() -> None:
    """Text on noise is no word error; it has its own columns."""
    invented = replace(NOISE, clip_id="m", text="(wind) Thank you! ...")
    (ours,) = report(SPEECH, NOISE, invented, baseline=None).systems
    assert (ours["noise_clips"], ours["noise_clips_with_text"], ours["noise_words"]) == (2, 1, 2.0)
    assert ours["error_rate"].value == 0.0


def test_held_back_speech_is_an_error_and_counted() -> None:
    """What is not published is not heard: its words are missing, and the column says why."""
    (ours,) = report(replace(SPEECH, text="", rejected=1), baseline=None).systems
    assert ours["speech_clips_rejected"] == 1
    assert ours["error_rate"].value == 1.0


def test_characters_do_not_mix_with_words() -> None:
    """Chinese has a rate of its own and stays out of the word error rate."""
    chinese = replace(SPEECH, set_name="zh", language="zh", reference="打开电灯", text="打开电登")
    (ours,) = report(SPEECH, chinese, baseline=None).systems
    rates = {part["name"]: part for part in ours["sets"]}
    assert ours["error_rate"].value == 0.0
    assert (rates["zh"]["by_character"], rates["zh"]["error_rate"].value) == (True, 0.25)


def test_noise_alone_has_no_error_rate() -> None:
    """Nothing is said, so nothing is wrong; speed and memory are known all the same."""
    (ours,) = report(NOISE, baseline=None).systems
    assert ours["error_rate"] is None
    assert ours["sets"][0]["error_rate"] is None
    assert ours["peak_rss_bytes"] == 100


def test_failures_are_passed_on() -> None:
    """A system that could not be loaded is in the report by its reason."""
    failure = Failure("third", "not installed")
    assert summarise([*STARTS, SPEECH, failure], resamples=10).failures == (failure,)


def test_nothing_measured_is_an_empty_report() -> None:
    """No figure is made up."""
    assert summarise([], resamples=10).systems == ()


def test_peers_are_met_on_their_own_weights() -> None:
    """Each of ours is compared with the peers on its model, and with no other."""
    names = ["stock-pywhispercpp:b", "whisper_cpp:a:context=full", "stock-pywhispercpp:a"]
    starts: list[Record] = [SystemStart(name, 1.0, 1) for name in names]
    clips = [replace(SPEECH, system=name, cpu_s=1.0 + index) for index, name in enumerate(names)]
    found = summarise([*starts, *clips], resamples=10).comparisons
    assert [(one["name"], one["against"]) for one in found] == [
        (names[1], names[0]),
        (names[2], names[0]),
        tuple(names[1:]),
    ]
    assert found[-1]["cpu_ratio"].value == pytest.approx(2 / 3)


def latency(system: str, repeat: int, *delays: Delay) -> LatencyBlock:
    """A recording of a hundred seconds."""
    return LatencyBlock(system, "block 0", repeat, 100.0, 5.0, 7, (), delays)


def test_latencies_are_percentiles_over_all_utterances() -> None:
    """Of 20 utterances the 95th percentile is the 19th; a peer has no time from the end of speech."""
    timed = [Delay("s/1", "hello", number / 100, number / 100 + 0.6) for number in range(1, 21)]
    records = [latency("ours", 0, *timed), latency("peer", 0, Delay("s/1", "hello", 0.1))]
    ours, other = summarise(records, resamples=10).latencies
    assert (ours["utterances"], ours["after_hangover_p50_s"], ours["after_hangover_p95_s"]) == (20, 0.1, 0.19)
    assert ours["from_speech_end_p50_s"] == pytest.approx(0.7)
    assert (ours["peak_pss_bytes"], ours["cpu_rtf"]) == (7, 0.05)
    assert (other["utterances"], other["from_speech_end_p50_s"]) == (1, None)


def test_latencies_are_medians_over_passes() -> None:
    """One pass in which the machine was busy does not make the 95th percentile of all three."""
    passes = [[Delay("s/1", "hello", wall_s) for wall_s in (0.1, 0.1, 0.1, slowest_s)] for slowest_s in (0.2, 0.3, 5.0)]
    figures = summarise([latency("ours", repeat, *timed) for repeat, timed in enumerate(passes)], resamples=10)
    (ours,) = figures.latencies
    assert (ours["utterances"], ours["after_hangover_p50_s"], ours["after_hangover_p95_s"]) == (12, 0.1, 0.3)
    assert figures.repeats == 3


def test_passes_at_rest_are_passes_too() -> None:
    """The head of the report says how many there were, whatever was measured."""
    rest = [IdleMeasurement("ours", "idle", repeat, 1.0, 0.1, 1.0, 1, 0) for repeat in range(2)]
    assert summarise(rest, resamples=10).repeats == 2


@pytest.mark.parametrize("text", ["[BLANK_AUDIO]", "(wind blowing)", "...", "♪♪"])
def test_what_nobody_said_is_no_invented_word(text: str) -> None:
    """What a library says of a noise, or a full stop, is not put into anybody's mouth."""
    (ours,) = report(replace(NOISE, text=text), baseline=None).systems
    assert (ours["noise_clips_with_text"], ours["noise_words"]) == (0, 0.0)


def cells(figures: Report) -> list[str]:
    """Everything that is in the tables."""
    return [cell for table in tables(figures) for row in table.rows for cell in row]


def test_an_interval_without_width_is_none() -> None:
    """Clips without an error say that errors are rare, not that there can be none."""
    shown = cells(report(SPEECH, by_peer(SPEECH)))
    assert {"0.00 [–]", "+0.00 [–]", "1.00 [–]"} <= set(shown)


def test_latency_without_an_arrival_has_no_figures() -> None:
    """Nothing was heard in the block: no figure is made up."""
    (ours,) = summarise([latency("ours", 0)], resamples=10).latencies
    assert (ours["utterances"], ours["after_hangover_p50_s"]) == (0, None)


def test_the_share_of_a_core_is_the_median_over_runs() -> None:
    """One run in which something else happened does not show in it, but it does in the highest."""
    runs = [
        IdleMeasurement("x", "idle", repeat, 100.0, cpu_s, 2.0, 150_000_000 + repeat, 0)
        for repeat, cpu_s in enumerate((0.5, 9.0, 0.6))
    ]
    (summary,) = summarise(runs, resamples=10).idle
    assert summary["core_share"] == pytest.approx(0.006)
    assert summary["highest_core_share"] == pytest.approx(0.09)
    assert (summary["runs"], summary["loading_cpu_s"], summary["peak_pss_bytes"]) == (3, 2.0, 150_000_002)


def test_an_engine_without_a_model_meets_no_peer() -> None:
    """It is compared with the baseline as any other, and that is all."""
    starts: list[Record] = [SystemStart("scripted", 1.0, 0), SystemStart(PEER, 1.0, 1)]
    figures = summarise([*starts, replace(SPEECH, system="scripted"), by_peer(SPEECH)], resamples=10)
    assert [(one["name"], one["against"]) for one in figures.comparisons] == [(PEER, "scripted")]


def test_what_has_no_words_to_get_wrong_enters_no_rate() -> None:
    """The normaliser takes "Hmm." for no word: neither rate counts it, and so the difference does not either."""
    hum = replace(SPEECH, clip_id="2", reference="Hmm.", text="three wrong words")
    figures = report(SPEECH, hum, by_peer(SPEECH), by_peer(hum, text=""))
    rate, difference = figures.systems[0]["error_rate"], compared(figures)["error_rate_difference"]
    assert rate.value == difference.value == 0.0
    only_hum = report(hum, by_peer(hum))
    assert only_hum.systems[0]["error_rate"] is None
    assert compared(only_hum)["error_rate_difference"] is None


def test_another_baseline_in_its_place_is_said() -> None:
    """A peer that is not installed cannot be compared with, and nobody should take another one for it."""
    figures = report(SPEECH, baseline=PEER)
    assert (figures.baseline, figures.missing_baseline) == (OURS, PEER)
    assert any(PEER in line for line in notes(figures))
    assert report(SPEECH, by_peer(SPEECH)).missing_baseline == report(SPEECH, baseline=None).missing_baseline == ""


def test_the_report_says_what_was_left_out() -> None:
    """As the last run counted it."""
    records: list[Record] = [*STARTS, LeftOut(OURS, {"de": 1}), SPEECH, LeftOut(OURS, {"de": 12, "fr": 3})]
    figures = summarise(records, resamples=10)
    assert figures.left_out == (records[-1],)
    assert any(f"{OURS} knows English only: 12 in de and 3 in fr" in line for line in notes(figures))
