import threading

import pytest

from agent.audio.monitor import Condition
from agent.telemetry.counters import Counters
from tests.messages import latency
from tests.support.snapshots import distribution, snapshot


def test_nothing_is_known_before_anything_happened() -> None:
    """Figures that need an utterance are left out until there was one."""
    asr = Counters().asr()
    assert (asr.utt, asr.rejected, asr.dropped_s, asr.speech_pct) == (0, 0, 0.0, 0.0)
    assert asr.rtf_p95 is None
    assert asr.lat_ms_p95 is None
    assert Counters().audio().noise_floor_dbfs is None


def test_speech_is_a_share_of_what_was_heard() -> None:
    """10 s heard, 2.5 s of it in utterances: a quarter."""
    counters = Counters()
    counters.add("heard_s", 10.0)
    counters.add("speech_s", 2.5)
    assert counters.asr().speech_pct == 25.0


def test_windows_follow_the_present() -> None:
    """A bad start is gone from the percentiles after 64 utterances, but not from the totals."""
    counters = Counters()
    counters.transcribed(rtf=9.0, latency=latency(9_000))
    for _ in range(64):
        counters.transcribed(rtf=0.1234, latency=latency(810))
    asr = counters.asr()
    assert (asr.utt, asr.rtf_p50, asr.rtf_p95, asr.lat_ms_p50, asr.lat_ms_p95) == (65, 0.123, 0.123, 810, 810)
    assert (asr.queue_ms_p95, asr.decode_ms_p95) == (42, 168)


def test_distributions_forget_nothing() -> None:
    """One bad utterance among 65 stays where it was counted, in every part of its latency."""
    counters = Counters()
    counters.transcribed(rtf=9.0, latency=latency(9_000))
    for _ in range(64):
        counters.transcribed(rtf=0.1234, latency=latency(810))
    rtfs, latencies = distribution(counters, "real_time_factor"), distribution(counters, "latency_seconds")
    assert (rtfs["0.1"], rtfs["0.2"], rtfs["4.0"], rtfs["+Inf"], rtfs["count"]) == (0, 64, 64, 65, 65)
    assert rtfs["sum"] == pytest.approx(9.0 + 64 * 0.1234)
    assert latencies["vad_close sum"] == pytest.approx(39.0)


def test_distributions_that_were_given_away_do_not_change() -> None:
    """Another thread reads them."""
    counters = Counters()
    before = snapshot(counters=counters)
    counters.transcribed(rtf=0.1, latency=None)
    assert {sample.value for family in before.distributions for sample in family.samples} == {0.0}


def test_clipping_is_a_share_of_speech() -> None:
    """Samples at full scale among those of all utterances; unknown before the first one."""
    counters = Counters()
    assert counters.audio().clip_pct is None
    counters.add("spoken_samples", 64_000)
    counters.add("clipped_samples", 320)
    assert counters.audio().clip_pct == 0.5


def test_the_queue_is_as_long_as_it_is_said_to_be() -> None:
    """It is not counted here, only passed on; unknown where nobody asked."""
    assert Counters().asr().waiting is None
    assert Counters().asr(3).waiting == 3


def test_losses_are_counted_by_kind() -> None:
    """Rejected utterances, sounds that were none, dropped speech and capture overruns do not mix."""
    counters = Counters()
    counters.add("rejected")
    counters.add("discarded", 2)
    counters.add("dropped_s", 3.0)
    counters.add("dropped_s", 1.5)
    counters.add("xruns")
    counters.add("losses")
    counters.sound = Condition(gaps=2, lost_s=0.064, silences=3, offset_pct=-0.26)
    counters.noise_floor_dbfs = -52.34
    asr, audio = counters.asr(), counters.audio()
    assert (asr.rejected, asr.discarded, asr.dropped_s, asr.utt) == (1, 2, 4.5, 0)
    assert (audio.xruns, audio.losses, audio.gaps_s, audio.silences) == (1, 1, 0.06, 3)
    assert (audio.noise_floor_dbfs, audio.offset_pct) == (-52.3, -0.3)


def test_stages_may_count_at_the_same_time() -> None:
    """No count is lost between threads."""
    counters = Counters()

    def reject() -> None:
        for _ in range(2_000):
            counters.add("rejected")

    threads = [threading.Thread(target=reject) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.asr().rejected == 8_000
