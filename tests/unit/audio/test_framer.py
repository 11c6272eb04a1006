import itertools

import numpy as np
import pytest

from agent.audio.framer import Framer, PcmFormat, RateGuard, one_channel
from agent.audio.frames import FRAME_SAMPLES, AudioFrame, Pcm16
from agent.errors import DeviceEndless

MONO_16K = PcmFormat(16_000, 1, "S16_LE")
STEREO_48K = PcmFormat(48_000, 2, "S16_LE")
MS = 1_000_000
SECOND_NS = 1_000_000_000


def ramp(count: int, start: int = 0) -> Pcm16:
    """Samples that tell where they stood."""
    return np.arange(start, start + count, dtype=np.int16)


def joined(frames: list[AudioFrame]) -> Pcm16:
    """The sound of several frames."""
    return np.concatenate([frame.pcm for frame in frames])


def test_chunks_of_any_size_become_frames_of_512() -> None:
    """However the device cuts, the frames are whole, contiguous, and nothing is lost or repeated."""
    framer = Framer(MONO_16K)
    frames: list[AudioFrame] = []
    sent = ramp(40 * FRAME_SAMPLES)
    position = 0
    for size in (1, 319, 320, 512, 513, 2_000, 7_000, 9_000):
        frames += framer.push(sent[position : position + size].tobytes(), SECOND_NS)
        position += size
    assert np.array_equal(joined(frames), sent[: len(frames) * FRAME_SAMPLES])
    assert [frame.position for frame in frames] == [index * FRAME_SAMPLES for index in range(len(frames))]
    assert len(frames) == position // FRAME_SAMPLES


def test_an_odd_byte_never_shifts_what_follows() -> None:
    """A torn sample at the end of a chunk is dropped; the next chunk is read from its own start."""
    framer = Framer(MONO_16K)
    framer.push(ramp(256).tobytes() + b"\x7f", SECOND_NS)
    (frame,) = framer.push(ramp(256, start=256).tobytes(), SECOND_NS)
    assert np.array_equal(frame.pcm, ramp(512))


def test_an_overrun_moves_the_position_by_what_the_clock_says() -> None:
    """Half a second of silence from the device is a jump of 8000 samples."""
    framer = Framer(MONO_16K)
    (before,) = framer.push(ramp(512).tobytes(), 0)
    framer.overrun()
    (after,) = framer.push(ramp(512).tobytes(), 532 * MS)
    assert before.position == 0
    assert after.position == 512 + 8_000
    assert np.array_equal(after.pcm, ramp(512))


def test_a_frame_begun_before_a_gap_is_filled_up_with_zeros() -> None:
    """Sound from before and after a gap never shares a frame."""
    framer = Framer(MONO_16K)
    assert framer.push(ramp(100, start=1).tobytes(), 0) == []
    framer.overrun()
    filled, after = framer.push(ramp(512).tobytes(), 1_032 * MS)
    assert np.array_equal(filled.pcm, np.pad(ramp(100, start=1), (0, 412)))
    assert filled.position == 0
    assert after.position == 100 + 16_000
    assert np.array_equal(after.pcm, ramp(512))


def test_an_overrun_before_any_sound_is_no_gap() -> None:
    """There is nothing yet that could have been lost."""
    framer = Framer(MONO_16K)
    framer.overrun()
    (frame,) = framer.push(ramp(512).tobytes(), SECOND_NS)
    assert frame.position == 0


def test_sound_that_was_lost_without_a_word_is_found_out_by_the_clock() -> None:
    """Three seconds that never come are a jump of the position within two more, without a word from the device."""
    framer = Framer(MONO_16K)
    before = [frame for index in range(100) for frame in framer.push(ramp(512).tobytes(), index * 32 * MS)]
    after = [
        frame for index in range(100, 200) for frame in framer.push(ramp(512).tobytes(), 3_000 * MS + index * 32 * MS)
    ]
    frames = [*before, *after]
    jumps = [(late.position - early.end, index) for index, (early, late) in enumerate(itertools.pairwise(frames), 1)]
    ((lost, found_at),) = [jump for jump in jumps if jump[0]]
    assert lost == pytest.approx(48_000, abs=1_600)
    assert 100 <= found_at <= 100 + 3_000 // 32
    assert abs(frames[-1].captured_ns - (3_000 + 199 * 32) * MS) < 100 * MS


def test_who_is_late_and_makes_up_for_it_has_lost_nothing() -> None:
    """A machine that was busy for a second and a half finds the sound waiting."""
    framer, frames = Framer(MONO_16K), list[AudioFrame]()
    for index in range(300):
        now_ns = index * 32 * MS
        if 100 <= index < 147:  # held up, and then fetched at once
            now_ns = 147 * 32 * MS
        frames += framer.push(ramp(512).tobytes(), now_ns)
    assert [frame.position for frame in frames] == [512 * index for index in range(300)]


def test_stereo_at_48_khz_becomes_its_one_channel_at_16_khz() -> None:
    """A tone on the left comes out as the same tone, at its level; the other channel is not heard."""
    seconds = np.arange(48_000) / 48_000
    left = (10_000 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
    right = (10_000 * np.sin(2 * np.pi * 3_000 * seconds)).astype(np.int16)
    interleaved = np.column_stack([left, right])
    framer = Framer(STEREO_48K)
    frames: list[AudioFrame] = []
    for first in range(0, 48_000, 960):
        frames += framer.push(interleaved[first : first + 960].tobytes(), SECOND_NS)
    pcm = joined(frames)[-8_000:].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(8_000)))
    assert np.argmax(spectrum) == 220  # bins of 2 Hz
    assert spectrum[1_500] < spectrum[220] / 1_000
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(10_000 / np.sqrt(2), rel=0.02)


def test_the_channel_that_was_chosen_is_the_one_that_is_heard() -> None:
    """The second of four, and of no other a trace."""
    four = np.column_stack([ramp(512) + 1_000 * channel for channel in range(4)]).astype(np.int16)
    (frame,) = Framer(PcmFormat(16_000, 4, "S16_LE"), channel=2).push(four.tobytes(), SECOND_NS)
    assert np.array_equal(frame.pcm, ramp(512) + 1_000)


def test_24_bits_in_four_bytes_are_taken_from_the_lower_three() -> None:
    """As I2S microphones deliver them: the uppermost byte is padding."""
    values = np.array([0, 1, -1, 32_767, -32_768], np.int16)
    data = b"".join((int(value) << 8).to_bytes(3, "little", signed=True) + b"\x55" for value in values)
    assert np.array_equal(one_channel(data, PcmFormat(16_000, 1, "S24_LE")), values)


@pytest.mark.parametrize(("sample", "width"), [("S24_3LE", 3), ("S32_LE", 4)])
def test_wider_samples_keep_their_upper_16_bits(sample: str, width: int) -> None:
    """24 and 32 bits, two channels: the first channel's upper half."""
    values = np.array([0, 1, -1, 32_767, -32_768], np.int16)
    wide = [int(value) << (8 * (width - 2)) for value in values]
    data = b"".join(value.to_bytes(width, "little", signed=True) + b"\x55" * width for value in wide)
    assert np.array_equal(one_channel(data, PcmFormat(16_000, 2, sample)), values)


def test_capture_times_are_steady_though_arrivals_jitter() -> None:
    """Chunks that arrive late and then in a burst were not captured late and then in a burst."""
    framer = Framer(MONO_16K)
    jitter = np.random.default_rng(3).integers(0, 200 * MS, 400)
    frames: list[AudioFrame] = []
    for index in range(400):
        true_ns = (index + 1) * 32 * MS
        frames += framer.push(ramp(512).tobytes(), true_ns + int(jitter[index]))
    steps_ms = np.diff([frame.captured_ns for frame in frames]) / MS
    assert np.all(np.abs(steps_ms[200:] - 32) < 6)  # of up to 200


def test_capture_times_follow_a_card_whose_crystal_is_slow() -> None:
    """After half an hour at 100 ppm the times are within 5 ms of the truth; uncorrected they would be off by 180."""
    framer = Framer(MONO_16K)
    data = ramp(512).tobytes()
    for index in range(56_250):
        now_ns = (index + 1) * 32 * 1_000_100  # ns
        (frame,) = framer.push(data, now_ns)
    assert 0 <= now_ns - frame.captured_ns < 5 * MS


def flood(guard: RateGuard, now_ns: int, chunks: int = 100) -> None:
    """Chunks of 20 ms, all at the same moment."""
    for _ in range(chunks):
        guard.check(0.02, now_ns)


def test_a_device_faster_than_time_is_noticed() -> None:
    """Three seconds of surplus are too much; what a pipe kept back (2 s) is not."""
    guard = RateGuard()
    flood(guard, 0)
    with pytest.raises(DeviceEndless, match="faster than real time"):
        flood(guard, 0)


def test_months_of_good_behaviour_buy_no_credit() -> None:
    """The guard looks at the present: an endless source after a long quiet run is noticed as soon as at the start."""
    guard = RateGuard()
    for second in range(100_000):
        guard.check(1.0, second * SECOND_NS)
    with pytest.raises(DeviceEndless):
        flood(guard, 100_000 * SECOND_NS, chunks=200)


def test_a_card_that_is_a_little_fast_is_let_be() -> None:
    """A crystal is off by 0.01 %, a bad one by 1 %; neither is an endless source."""
    guard = RateGuard()
    for second in range(100_000):
        guard.check(1.01, second * SECOND_NS)


def test_a_burst_is_suspicious_until_it_has_ended_or_given_itself_away() -> None:
    """Two seconds that were kept back are used a third of a second later; of an endless source nothing is."""
    guard = RateGuard()
    flood(guard, 0, chunks=10)
    assert not guard.suspicious(0)
    flood(guard, 0, chunks=90)
    assert guard.suspicious(200 * MS)
    assert not guard.suspicious(300 * MS)
