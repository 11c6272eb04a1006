from agent.messages import Message, State, Vad
from agent.messages.partial import PartialTranscript
from agent.terminal.recent import Memory
from tests.messages import NOON, info, transcript


def state(*, listening: bool) -> State:
    """Applied values, muted or not."""
    return State(
        listening=listening, engine="scripted", model="scripted", language="en", vad_threshold=0.5, min_confidence=0.0
    )


def partial(text: str) -> PartialTranscript:
    """Words while somebody still speaks."""
    return PartialTranscript(id="01JD", ts=NOON, duration_s=1.0, text=text, lang="en")


def told(*messages: Message) -> Memory:
    """A memory that was told these, a second apart."""
    memory = Memory()
    for second, message in enumerate(messages):
        memory.remember(message, float(second))
    return memory


def test_the_last_of_each_kind_counts() -> None:
    """With the moment at which it was said."""
    latest = told(info(), transcript(1, "one"), transcript(2, "two")).latest
    assert latest.transcript
    assert (latest.transcript.text, latest.said_s) == ("two", 2.0)
    assert latest.info == info()


def test_somebody_speaks_from_the_first_on_to_off() -> None:
    """ON is repeated for subscribers that come late, and begins nothing anew."""
    assert told(Vad(state="ON"), Vad(state="ON")).latest.speaking_since_s == 0.0
    assert told(Vad(state="ON"), Vad(state="OFF")).latest.speaking_since_s is None


def test_words_in_between_are_those_of_this_utterance() -> None:
    """They go when the utterance has its words, and when the next one begins."""
    assert told(Vad(state="ON"), partial("turn")).latest.partial == partial("turn")
    assert told(Vad(state="ON"), partial("turn"), transcript(1)).latest.partial is None
    assert told(Vad(state="ON"), partial("turn"), Vad(state="OFF"), Vad(state="ON")).latest.partial is None


def test_who_mutes_is_not_quoted() -> None:
    """What was said before is forgotten, and does not come back when the device listens again."""
    muted = (transcript(1), Vad(state="ON"), partial("secret"), state(listening=False))
    for messages in (muted, (*muted, state(listening=True))):
        latest = told(*messages).latest
        assert (latest.transcript, latest.partial, latest.speaking_since_s) == (None, None, None)
