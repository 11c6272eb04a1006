import logging
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import Utterance
from agent.config.keywords import keyword_rules
from agent.errors import EngineError
from agent.messages import Health, Message, PartialTranscript, TranscriptFailed, TranscriptMessage, Vad, topic_for
from agent.messages.privacy import PublishPolicy
from agent.mqtt.publisher import VAD_REPEAT_S, Publisher
from agent.segmenter import Discarded, Ended, Paused, Resumed, SegmenterEvent, SpeechStarted
from agent.telemetry.counters import Counters
from tests.messages import info
from tests.support.snapshots import distribution

RATE = 16_000
UTTERANCE = Utterance("u1", np.zeros(2 * RATE, np.int16), 0, 0, speech_end=RATE, closed_at=2 * RATE)
TRANSCRIPT = Transcript("u1", "turn on the light", "en", (), "scripted", "scripted", 0.5, 100)


@dataclass
class Basket:
    """A sink that keeps what it is given."""

    messages: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        """Keep it."""
        self.messages.append(message)

    def close(self, timeout_s: float) -> int:
        """Nothing waits."""
        del timeout_s
        return 0

    @property
    def health(self) -> list[tuple[str, tuple[str, ...]]]:
        """Problem and codes of every health message."""
        return [(message.problem, message.codes) for message in self.messages if isinstance(message, Health)]

    @property
    def vad(self) -> list[str]:
        """What was said about speaking."""
        return [message.state for message in self.messages if isinstance(message, Vad)]

    @property
    def transcripts(self) -> list[TranscriptMessage]:
        """The words."""
        return [message for message in self.messages if isinstance(message, TranscriptMessage)]


class Rig:
    """A publisher that is open, with one sink, whose greetings are forgotten."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.publisher = Publisher(self.counters, "boot-1")
        self.basket = Basket()
        self.publisher.open([self.basket])
        self.basket.messages.clear()

    def recognise(self, transcript: Transcript = TRANSCRIPT) -> None:
        """Report the words of an utterance of two seconds."""
        self.publisher.recognised(UTTERANCE, transcript, 0.0, 0.25)

    def transcribe_with_fallback(self, *events: SegmenterEvent) -> None:
        """Report what the segmenter told."""
        for event in events:
            self.publisher.heard(event)


@pytest.fixture
def rig() -> Rig:
    """See there."""
    return Rig()


def test_greetings_come_first_then_the_health() -> None:
    """Who subscribes learns what the device is before anything else, and that nothing is wrong."""
    basket = Basket()
    greeting = info()
    Publisher(Counters(), "boot-1").open([basket], greeting)
    assert basket.messages == [greeting, Health(problem="OFF")]


def test_what_was_wrong_before_there_was_a_sink_is_told_then() -> None:
    """A microphone that is missing at the start is not forgotten, and nothing is sent into the void."""
    basket = Basket()
    publisher = Publisher(Counters(), "boot-1")
    publisher.problem("mic_absent")
    publisher.open([basket])
    assert basket.health == [("ON", ("mic_absent",))]


def test_every_sink_gets_every_message() -> None:
    """Standard output and the broker see the same."""
    baskets = [Basket(), Basket()]
    publisher = Publisher(Counters(), "boot-1")
    publisher.open(baskets, info())
    publisher.problem("mic_absent")
    assert baskets[0].messages == baskets[1].messages
    assert len(baskets[0].messages) == 3


def test_partials_leave_the_device_only_where_they_are_wanted(rig: Rig) -> None:
    """Off by default, never with less than full privacy, never without words; no number is used up."""
    for policy in (PublishPolicy(), PublishPolicy(privacy="keywords", partials=True)):
        rig.publisher.policy = policy
        rig.publisher.partial(UTTERANCE, TRANSCRIPT)
    assert rig.basket.messages == []
    rig.publisher.policy = PublishPolicy(partials=True)
    rig.publisher.partial(UTTERANCE, replace(TRANSCRIPT, text="", verdict=Verdict.REJECTED))
    rig.publisher.partial(UTTERANCE, TRANSCRIPT)
    (partial,) = rig.basket.messages
    assert isinstance(partial, PartialTranscript)
    assert (partial.id, partial.text, partial.duration_s) == ("u1", "turn on the light", 2.0)
    rig.recognise()
    assert [transcript.seq for transcript in rig.basket.transcripts] == [1]


def test_what_comes_late_is_for_the_archive(rig: Rig) -> None:
    """On the backlog's topic, marked; it is numbered and counted, fires no keyword, and counts for no latency."""
    rig.publisher.policy = PublishPolicy(rules=keyword_rules(("light",)))
    rig.publisher.recognised(UTTERANCE, TRANSCRIPT, 90.0, 90.5, late=True)
    (message,) = rig.basket.messages
    assert isinstance(message, TranscriptMessage)
    assert (message.late, message.replayed, message.seq) == (True, True, 1)
    assert topic_for("pi-1", message) == "edgescribe/v1/pi-1/transcript/backlog"
    asr = rig.counters.asr()
    assert (asr.utt, asr.rtf_p95, asr.lat_ms_p95, asr.queue_ms_p95, asr.decode_ms_p95) == (1, 0.25, None, None, None)
    assert distribution(rig.counters, "real_time_factor")["count"] == 1
    assert set(distribution(rig.counters, "latency_seconds").values()) == {0}
    rig.recognise()
    assert rig.counters.asr().utt == 2
    assert topic_for("pi-1", rig.basket.transcripts[-1]) == "edgescribe/v1/pi-1/transcript"
    assert b'"late"' not in rig.basket.transcripts[-1].payload()


@pytest.mark.parametrize("dated", [True, False])
def test_a_beginning_that_is_a_guess_is_not_said_to_be_known(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, dated: bool
) -> None:
    """The clock is right now; it was not when this was kept, and there was a reboot in between."""
    monkeypatch.setattr("agent.mqtt.publisher.time_synced", lambda: True)
    utterance = replace(UTTERANCE, dated=dated)
    rig.publisher.recognised(utterance, TRANSCRIPT, 90.0, 90.5, late=True)
    rig.publisher.failed(utterance, EngineError("no words came"))
    rig.publisher.lost(utterance, "its file is gone")
    told = [one for one in rig.basket.messages if isinstance(one, TranscriptMessage | TranscriptFailed)]
    assert [message.time_synced for message in told] == [dated] * 3


def test_transcripts_count_up_without_gaps(rig: Rig) -> None:
    """What is rejected between two transcripts leaves no hole in their numbers."""
    rig.recognise()
    rig.recognise(replace(TRANSCRIPT, text=""))
    rig.recognise(replace(TRANSCRIPT, verdict=Verdict.REJECTED))
    rig.recognise(replace(TRANSCRIPT, verdict=Verdict.DOUBTFUL))
    assert [(message.seq, message.verdict) for message in rig.basket.transcripts] == [(1, "confident"), (2, "doubtful")]
    assert {message.boot_id for message in rig.basket.transcripts} == {"boot-1"}


@pytest.mark.parametrize(
    "transcript",
    [replace(TRANSCRIPT, text=""), replace(TRANSCRIPT, verdict=Verdict.REJECTED)],
    ids=["empty", "rejected"],
)
def test_what_has_no_words_is_counted_and_not_sent(rig: Rig, transcript: Transcript) -> None:
    """No text, or none worth publishing: a subscriber hears nothing, telemetry counts it."""
    rig.recognise(transcript)
    assert rig.basket.messages == []
    asr = rig.counters.asr()
    assert (asr.utt, asr.rejected) == (0, 1)


def test_a_transcript_is_measured(rig: Rig) -> None:
    """Its real-time factor and its latency from the end of speech are in the message and in telemetry."""
    rig.recognise()
    (message,) = rig.basket.transcripts
    asr = rig.counters.asr()
    assert (asr.utt, asr.rtf_p95, asr.rejected) == (1, 0.25, 0)
    assert asr.lat_ms_p95 == message.latency_ms.total_from_speech_end
    assert message.latency_ms.total_from_speech_end >= 1_250


def test_the_log_tells_of_an_utterance_without_its_words(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """One line with id, length and speed; what was said is nobody's business."""
    with caplog.at_level(logging.INFO, "agent.mqtt.publisher"):
        rig.recognise()
    (line,) = caplog.messages
    assert "u1: 2.0 s, rtf 0.250" in line
    assert "light" not in line


def test_health_is_said_on_change_only(rig: Rig) -> None:
    """A problem that goes on is said once, and its end once."""
    rig.publisher.problem("mic_absent")
    rig.publisher.problem("mic_absent")
    rig.publisher.resolve("mic_absent")
    rig.publisher.resolve("mic_absent")
    assert rig.basket.health == [("ON", ("mic_absent",)), ("OFF", ())]


def test_health_names_everything_that_is_wrong(rig: Rig) -> None:
    """The end of one problem is not the end of the other."""
    rig.publisher.problem("mic_absent")
    rig.publisher.problem("falling_behind")
    rig.publisher.resolve("mic_absent")
    assert rig.basket.health[1:] == [("ON", ("mic_absent", "falling_behind")), ("ON", ("falling_behind",))]


def test_health_that_is_said_last_is_what_came_last(rig: Rig) -> None:
    """It stays with the broker: who is slow to say that something is wrong does not say so after its end."""
    saying, go = threading.Event(), threading.Event()

    @dataclass
    class Hesitant(Basket):
        """That something is wrong is held up on its way."""

        def send(self, message: Message) -> None:
            """Keep it, once it is let go."""
            if isinstance(message, Health) and message.codes:
                saying.set()
                assert go.wait(30.0)
            super().send(message)

    basket = Hesitant()
    rig.publisher.open([basket])
    slow = threading.Thread(target=rig.publisher.conditions, args=("mic_", ("mic_absent",)))
    slow.start()
    assert saying.wait(30.0)
    quick = threading.Thread(target=rig.publisher.conditions, args=("mic_", ()))
    quick.start()
    quick.join(0.2)
    assert rig.publisher.problems == ()  # who wants to know does not wait for who tells
    go.set()
    for thread in (slow, quick):
        thread.join(30.0)
    assert basket.health[1:] == [("ON", ("mic_absent",)), ("OFF", ())]


def test_a_failing_engine_is_a_problem_until_it_works_again(rig: Rig) -> None:
    """The lost speech is counted in seconds; the next transcript ends the problem."""
    rig.publisher.failed(UTTERANCE, EngineError("no words came"))
    rig.recognise()
    assert rig.basket.health == [("ON", ("engine_failed",)), ("OFF", ())]
    assert rig.counters.asr().dropped_s == 2.0


def test_an_engine_that_cannot_keep_up_is_a_problem(rig: Rig) -> None:
    """Every dropped utterance is counted, the problem is said once, and a transcript ends it."""
    rig.publisher.dropped(UTTERANCE)
    rig.publisher.dropped(UTTERANCE)
    rig.recognise()
    assert rig.basket.health == [("ON", ("falling_behind",)), ("OFF", ())]
    assert rig.counters.asr().dropped_s == 4.0


def test_what_was_kept_and_is_lost_is_told_and_counted(rig: Rig) -> None:
    """The disk lost it; nothing is wrong with the engine, and nobody is told that it is."""
    rig.publisher.lost(UTTERANCE, "its file is gone")
    (message,) = rig.basket.messages
    assert isinstance(message, TranscriptFailed)
    assert (message.id, message.seq, message.reason, message.msg) == ("u1", 1, "overload", "its file is gone")
    assert rig.counters.asr().dropped_s == 2.0


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("text", ["turn on the light", ""])
def test_an_engine_that_works_again_is_no_problem_whatever_it_heard(rig: Rig, text: str, *, late: bool) -> None:
    """A cough without words, or what was kept for later, proves it as well as a transcript does."""
    rig.publisher.failed(UTTERANCE, EngineError("no words came"))
    rig.publisher.dropped(UTTERANCE)
    rig.publisher.recognised(UTTERANCE, replace(TRANSCRIPT, text=text), 0.0, 0.0, late=late)
    assert rig.publisher.problems == ()
    assert rig.basket.health[-1] == ("OFF", ())


def test_speaking_is_told_as_it_begins_and_ends(rig: Rig) -> None:
    """A pause that speech resumes after is no end; a cough that was discarded is no beginning, and counted."""
    rig.transcribe_with_fallback(
        SpeechStarted(0), Paused(UTTERANCE), Resumed(), Paused(UTTERANCE), Ended(UTTERANCE), Discarded(0, 64)
    )
    assert rig.basket.vad == ["ON", "OFF"]
    rig.counters.add("heard_s", 4.0)
    assert rig.counters.asr().speech_pct == 50.0
    assert rig.counters.asr().discarded == 1


def test_a_cut_is_not_the_end_of_speaking(rig: Rig) -> None:
    """Somebody who speaks longer than an utterance may last is speaking all the time."""
    rig.transcribe_with_fallback(SpeechStarted(0), Ended(replace(UTTERANCE, truncated=True)), Ended(UTTERANCE))
    assert rig.basket.vad == ["ON", "OFF"]


def test_speaking_is_repeated_for_those_who_came_late(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ON` again every ten seconds while somebody speaks, and not a moment longer."""
    now_s = [1_000.0]
    monkeypatch.setattr("agent.mqtt.publisher.time.monotonic", lambda: now_s[0])

    def after(seconds: float) -> list[str]:
        now_s[0] += seconds
        rig.publisher.repeat_speaking()
        return rig.basket.vad

    assert after(100.0) == []
    rig.transcribe_with_fallback(SpeechStarted(0))
    assert after(VAD_REPEAT_S - 0.1) == ["ON"]
    assert after(0.2) == ["ON", "ON"]
    assert after(1.0) == ["ON", "ON"]
    assert after(VAD_REPEAT_S) == ["ON", "ON", "ON"]
    rig.transcribe_with_fallback(Ended(UTTERANCE))
    assert after(VAD_REPEAT_S) == ["ON", "ON", "ON", "OFF"]


def test_before_it_is_open_nothing_is_lost_but_the_message(rig: Rig) -> None:
    """Reports that come early do no harm: they are counted all the same."""
    early = Publisher(rig.counters, "boot-1")
    early.recognised(UTTERANCE, TRANSCRIPT, 0.0, 0.0)
    assert rig.counters.asr().utt == 1
    assert rig.basket.messages == []
