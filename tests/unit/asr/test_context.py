"""The window follows the length of the utterance."""

import pytest

from agent.asr.context import FULL, FULL_WINDOW, MAX_TOKENS, POSITIONS_PER_SECOND, policy_for, token_cap

DURATIONS_S = [0.05, 0.5, 1.0, 3.0, 5.0, 7.68, 12.34, 20.0, 28.9, 29.0, 30.0]
STATES = [384, 512, 768, 1280]


@pytest.mark.parametrize("audio_state", STATES)
@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_the_window_holds_the_whole_utterance_and_never_more_than_whisper_has(
    audio_state: int, duration_s: float
) -> None:
    """Not a sample is cut off, with room behind it wherever the model has any."""
    positions = policy_for("follow", audio_state).window(duration_s).positions
    assert duration_s * POSITIONS_PER_SECOND <= positions <= FULL_WINDOW
    assert positions == FULL_WINDOW or positions >= duration_s * POSITIONS_PER_SECOND + 64


@pytest.mark.parametrize("audio_state", STATES)
def test_a_longer_utterance_never_gets_a_smaller_window(audio_state: int) -> None:
    """Positions and token cap grow with the duration."""
    windows = [policy_for("follow", audio_state).window(duration_s) for duration_s in DURATIONS_S]
    assert windows == sorted(windows, key=lambda window: (window.positions, window.max_tokens))


@pytest.mark.parametrize("audio_state", STATES)
def test_a_command_costs_at_most_half_of_the_full_window(audio_state: int) -> None:
    """The point of it all: three seconds are not paid as thirty."""
    assert policy_for("follow", audio_state).window(3.0).positions <= FULL_WINDOW // 2


def test_a_larger_model_never_gets_a_smaller_window() -> None:
    """The larger the model, the more it has to lose."""
    sizes = [policy_for("follow", state).window(3.0).positions for state in STATES]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("audio_state", STATES)
@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_the_full_context_is_always_the_whole_window(audio_state: int, duration_s: float) -> None:
    """`engine.context = "full"` is the stock behaviour, and what a retry gets."""
    assert policy_for("full", audio_state).window(duration_s).positions == FULL_WINDOW
    assert FULL.window(duration_s).positions == FULL_WINDOW


@pytest.mark.parametrize(("duration_s", "positions"), [(1.0, 256), (3.84, 256), (4.0, 264), (29.0, 1_500)])
def test_a_policy_can_be_given_in_positions(duration_s: float, positions: int) -> None:
    """`engine.context = "256+64"`: the length and 64 more, but at least 256 and at most the window."""
    assert policy_for("256+64", 384).window(duration_s).positions == positions


def test_two_mel_frames_fill_one_position() -> None:
    """The encoder's convolutions halve the 100 frames a second."""
    assert FULL.window(1.0).frames == 3_000


@pytest.mark.parametrize(("duration_s", "spoken_tokens"), [(1.7, 15), (2.32, 20), (11.66, 70), (0.4, 1)])
def test_the_token_cap_leaves_room_for_the_fastest_speech_we_have(duration_s: float, spoken_tokens: int) -> None:
    """Dates read out, a Russian sentence, a hurried reader: text, two timestamps and the end fit."""
    assert token_cap(duration_s) >= spoken_tokens + 3


def test_the_token_cap_never_exceeds_whispers_own() -> None:
    """A window has room for 224 tokens."""
    assert max(token_cap(duration_s) for duration_s in DURATIONS_S) <= MAX_TOKENS
