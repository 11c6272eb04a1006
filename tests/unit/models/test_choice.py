import itertools
import random

import pytest

from agent.models.calibration import Candidate, Engine, Limits, Measurement
from agent.models.choice import choose, dominates, keeps_up, pareto_front

LIMITS = Limits(memory_mb=400)


def measured(
    model: str = "tiny.en-q8_0",
    *,
    engine: Engine = "whisper_cpp",
    threads: int = 1,
    errors: int = 0,
    latency_s: float = 0.3,
    rtf: float | None = None,
    cpu: float = 0.1,
    mb: int = 150,
) -> Measurement:
    """What a candidate did with 80 words; its real-time factor follows from the latency unless it is given."""
    return Measurement(
        candidate=Candidate(engine, model, threads),
        size=model.partition("-")[0].partition(".")[0],
        english_only=".en" in model,
        words=80,
        errors=errors,
        rtf_p95=latency_s / 3 if rtf is None else rtf,
        latency_p50_s=latency_s,
        cpu_per_speech=cpu,
        peak_mb=mb,
        load_s=1.0,
        passes=3,
    )


def test_the_front_is_what_nothing_else_beats() -> None:
    """Of random measurements none on the front dominates another, and each that is off it is dominated by one on it."""
    dice = random.Random(3)  # noqa: S311 - no secret
    all_of_them = [
        measured(f"tiny-{n}", errors=dice.randrange(4), rtf=dice.random(), cpu=dice.random(), mb=dice.randrange(200))
        for n in range(60)
    ]
    front = pareto_front(all_of_them)
    assert 0 < len(front) < len(all_of_them)
    assert not any(dominates(one, other) for one, other in itertools.permutations(front, 2))
    assert all(any(dominates(one, other) for one in front) for other in all_of_them if other not in front)


def test_equals_do_not_push_each_other_off_the_front() -> None:
    """Who is just as good is not worse."""
    twins = (measured("tiny-q8_0"), measured("tiny-q4_0"))
    assert pareto_front(twins) == twins


def test_among_what_keeps_up_the_fewest_wrong_words_win() -> None:
    """Accuracy goes before speed, and before memory."""
    right, fast = measured("tiny-q8_0", errors=2, latency_s=0.5), measured("tiny-q4_0", errors=6, latency_s=0.1)
    choice = choose((fast, right), LIMITS)
    assert choice.candidate == right.candidate
    assert choice.keeps_up
    assert "Not whisper_cpp tiny-q4_0: it gets 4 more words wrong." in choice.reasons


def test_a_word_more_or_less_is_noise_and_then_the_larger_whisper_wins() -> None:
    """80 clear words cannot tell tiny from base; other recordings can, so base is taken where there is time for it."""
    tiny, base = (
        measured("tiny.en-ct2", errors=0, latency_s=0.1),
        measured("base-ct2", errors=1, latency_s=0.7, rtf=0.4),
    )
    choice = choose((tiny, base), LIMITS)
    assert choice.candidate == base.candidate
    assert any("tiny is the smaller Whisper" in reason for reason in choice.reasons)


@pytest.mark.parametrize(
    ("slow", "why"),
    [
        (measured("base-ct2", latency_s=0.81, rtf=0.3), "too slow, with 0.81 s"),
        (measured("base-ct2", latency_s=0.7, rtf=0.51), "at a real-time factor of 0.51"),
        (measured("base-ct2", mb=401), "its 401 MB do not fit"),
    ],
)
def test_each_limit_keeps_out_what_exceeds_it(slow: Measurement, why: str) -> None:
    """However accurate: too slow for a person who waits, too slow to catch up, or too large."""
    choice = choose((measured(errors=5), slow), LIMITS)
    assert choice.candidate.model == "tiny.en-q8_0"
    assert any("Not whisper_cpp base-ct2" in reason and why in reason for reason in choice.reasons)


def test_of_equally_accurate_ones_the_quicker_wins() -> None:
    """Engine and quantisation are a question of speed where they hear the same."""
    slow, quick = measured("tiny.en-q8_0", latency_s=0.4), measured("tiny.en-ct2", engine="faster_whisper", mb=250)
    assert choose((slow, quick), LIMITS).candidate == quick.candidate


def test_more_threads_must_be_worth_their_cpu_time() -> None:
    """A tenth faster is noise: then fewer threads, which leave more for others, are chosen. Twice as fast is not."""
    one, two = measured(threads=1, latency_s=0.32, cpu=0.1), measured(threads=2, latency_s=0.30, cpu=0.15)
    choice = choose((two, one), LIMITS)
    assert choice.candidate.threads == 1
    why = "no clear difference in words or time, and more CPU time (0.150 s a second of speech, not 0.100)"
    assert f"Not whisper_cpp tiny.en-q8_0 with 2 threads: {why}." in choice.reasons
    assert choose((measured(threads=2, latency_s=0.16, cpu=0.15), one), LIMITS).candidate.threads == 2


def test_where_nothing_keeps_up_the_fastest_is_taken_and_it_is_said() -> None:
    """A device that is too slow still listens, and its owner knows why it lags."""
    slow, slower = measured("tiny-q4_0", latency_s=4.0, rtf=1.4), measured("tiny-q8_0", latency_s=5.0, rtf=1.8)
    choice = choose((slower, slow), LIMITS)
    assert choice.candidate == slow.candidate
    assert not choice.keeps_up
    assert "the fastest, with 1.40 and 4.0 s" in choice.reasons[0]
    assert "fall behind" in choice.reasons[1]


def test_where_nothing_fits_the_smallest_is_taken_and_it_is_said() -> None:
    """Memory goes before everything: what is killed hears nothing."""
    small, large = measured("tiny-q4_0", mb=140, errors=9), measured("tiny-q8_0", mb=160)
    choice = choose((large, small), Limits(memory_mb=100))
    assert choice.candidate == small.candidate
    assert not choice.keeps_up
    assert "No model fits into the 100 MB" in choice.reasons[0]


def test_what_is_chosen_keeps_to_the_limits_if_anything_does() -> None:
    """Whatever was measured, in whatever order; and the order makes no difference."""
    dice = random.Random(7)  # noqa: S311 - no secret
    for _ in range(100):
        some = [
            measured(
                f"{dice.choice(['tiny', 'base', 'small'])}-{n}",
                errors=dice.randrange(8),
                latency_s=dice.uniform(0.1, 1.5),
                cpu=dice.random(),
                mb=dice.randrange(100, 600),
            )
            for n in range(6)
        ]
        choice = choose(some, LIMITS)
        chosen = next(one for one in some if one.candidate == choice.candidate)
        possible = [one for one in some if one.peak_mb <= LIMITS.memory_mb and keeps_up(one, LIMITS)]
        assert choice.keeps_up == bool(possible)
        assert not possible or chosen in possible
        assert choose(some[::-1], LIMITS).candidate == choice.candidate


@pytest.mark.parametrize(
    ("other", "why"),
    [
        # 2 wrong words are too many beside the tiny one, which is larger than nothing but more accurate than the best.
        (measured("base-ct2", errors=2, latency_s=0.2), "it gets 2 more words wrong than tiny-q8_0"),
        # Within a tenth of the best, not of the quickest.
        (measured("base-q4_0", latency_s=0.34, cpu=0.05), "no more accurate, and slower with 0.34 s"),
        # The quickest of them, by less than counts.
        (measured("base-f16", latency_s=0.30, cpu=0.20), "and more CPU time (0.200 s a second of speech, not 0.100)"),
        (measured("base-q5_1", latency_s=0.33, mb=200), "but in memory: 200 MB, not 150"),
        (measured("base-q4_1", latency_s=0.33), "no clear difference"),
    ],
)
def test_the_reason_is_the_comparison_that_decided(other: Measurement, why: str) -> None:
    """Each of these is out for one thing, and it would be false to say another."""
    best = measured("base-q8_0", errors=1, latency_s=0.33)
    field = [best, measured("tiny-q8_0"), measured("base-f32", latency_s=0.30, cpu=0.30), other]
    choice = choose(field, LIMITS)
    assert choice.candidate == best.candidate
    (reason,) = [reason for reason in choice.reasons if other.candidate.model in reason]
    assert reason.endswith(f"{why}.")


def test_other_threads_that_lose_for_their_words_are_not_called_slow() -> None:
    """Threads are a candidate as any other, and out for what they are out for."""
    one, two = measured(threads=1, latency_s=0.5), measured(threads=2, errors=4, latency_s=0.3)
    assert (
        "Not whisper_cpp tiny.en-q8_0 with 2 threads: it gets 4 more words wrong." in choose((one, two), LIMITS).reasons
    )


def test_what_does_not_fit_may_well_be_fast() -> None:
    """So it is not said of everything that it is slow."""
    slow, large = measured("tiny-q8_0", latency_s=4.0), measured("base-q8_0", mb=500)
    assert choose((slow, large), LIMITS).reasons[0].startswith("No model that fits keeps to the limits")
