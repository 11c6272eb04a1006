"""The recording as a source, on real files of every kind."""

import itertools
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import EDGE_SAMPLES, FRAME_SAMPLES, SAMPLE_RATE_HZ, AudioFrame, Pcm16, rms_dbfs
from agent.audio.wav import WavSource
from agent.config.settings import WavSettings
from agent.errors import SourceError
from tests.support.clips import SPEECH, clip


def read_all(source: WavSource) -> list[AudioFrame]:
    """Every frame to the end."""
    frames: list[AudioFrame] = []
    while frame := source.read():
        frames.append(frame)
    source.close()
    return frames


def flat_out(path: Path) -> list[AudioFrame]:
    """Every frame of a file, without waiting."""
    return read_all(WavSource(WavSettings(path=path, pace="flat_out")))


def sound_of(frames: list[AudioFrame]) -> Pcm16:
    """The frames, joined, without the silence before and behind the recording."""
    end = max(frame.end for frame in frames if not frame.is_edge)
    return np.concatenate([frame.pcm for frame in frames])[-frames[0].position :][:end]


def tone(rate_hz: int, seconds: float, channels: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A sine of 440 Hz at half scale, shape (n, channels)."""
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * seconds)) / rate_hz)
    return np.repeat(sine[:, None], channels, axis=1)


def test_16_bit_at_16_khz_arrives_bit_for_bit() -> None:
    """The samples are the file's own, the last frame filled up with zeros."""
    frames = flat_out(SPEECH / "en_pls-hold-while-try.flac")
    expected = clip("en_pls-hold-while-try")
    sound = sound_of(frames)
    np.testing.assert_array_equal(sound[: len(expected)], expected)
    assert not sound[len(expected) :].any()
    assert len(sound) - len(expected) < FRAME_SAMPLES


def test_every_frame_has_512_samples_and_its_place_and_time() -> None:
    """Positions count from the first sample of the recording, and capture times follow them, from the first read on."""
    now_ns = 7_000_000_000
    settings = WavSettings(path=SPEECH / "en_dir-intro.flac", pace="flat_out")
    frames = read_all(WavSource(settings, clock=lambda: now_ns))
    assert -EDGE_SAMPLES <= frames[0].position <= 0
    for index, frame in enumerate(frames):
        assert frame.pcm.shape == (FRAME_SAMPLES,)
        assert frame.pcm.dtype == np.int16
        assert frame.position == frames[0].position + index * FRAME_SAMPLES
        assert frame.captured_ns == now_ns + frame.end * 62_500


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (48_000, 1), (8_000, 1), (16_000, 2)])
def test_formats_rates_and_channels_all_become_16_khz_mono(
    tmp_path: Path, suffix: str, rate_hz: int, channels: int
) -> None:
    """Two seconds of a tone stay two seconds of the same tone at the same level."""
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate_hz, 2.0, channels), rate_hz)
    sound = sound_of(flat_out(path))
    assert len(sound) / SAMPLE_RATE_HZ == pytest.approx(2.0, abs=0.12), "MP3 pads by up to two of its frames"
    middle = sound[8_000:24_000]
    assert np.argmax(np.abs(np.fft.rfft(middle.astype(np.float64)))) == 440
    assert rms_dbfs(middle) == pytest.approx(-9.03, abs=0.3)


def test_resampling_in_blocks_leaves_no_seams(tmp_path: Path) -> None:
    """A resampled tone has nothing but the tone in it: what remains without it is 50 dB down."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(44_100, 4.0), 44_100, subtype="FLOAT")
    middle = sound_of(flat_out(path))[16_000:48_000].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
    peak = slice(880 - 8, 880 + 9)
    assert spectrum.sum() - spectrum[peak].sum() < 1e-5 * spectrum[peak].sum()


def test_the_end_is_not_lost_in_the_resampler(tmp_path: Path) -> None:
    """Of a file of 44.1 kHz the last ten milliseconds arrive too, at their place."""
    sound = np.zeros((44_100, 1))
    sound[-441:] = tone(44_100, 0.01)
    soundfile.write(tmp_path / "late.wav", sound, 44_100)
    arrived = sound_of(flat_out(tmp_path / "late.wav"))
    assert rms_dbfs(arrived[16_000 - 160 : 16_000]) == pytest.approx(-9.0, abs=1.0)
    assert rms_dbfs(arrived[: 16_000 - 320]) < -60


def test_channels_are_averaged_or_one_is_taken(tmp_path: Path) -> None:
    """Sound on one channel of two comes out at half its height, or at its own where that channel is chosen."""
    path = tmp_path / "left.wav"
    soundfile.write(path, tone(16_000, 1.0, 2) * [1.0, 0.0], 16_000)
    heights = []
    for channel in (None, 1, 2):
        frames = read_all(WavSource(WavSettings(path=path, pace="flat_out", channel=channel)))
        heights.append(np.abs(sound_of(frames)).max() / 32_768)
    assert heights == pytest.approx([0.25, 0.5, 0.0], abs=0.001)


def test_a_channel_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message says which there are."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, tone(16_000, 1.0, 2), 16_000)
    with pytest.raises(SourceError, match="1 to 2"):
        WavSource(WavSettings(path=path, channel=3))


@pytest.mark.parametrize("opposite", [[1.0, -0.95], [0.5, -0.55]])
def test_channels_that_cancel_each_other_are_an_error_behind_the_sound(tmp_path: Path, opposite: list[float]) -> None:
    """The message names the settings, and the louder channel; with that channel there is no complaint."""
    path = tmp_path / "opposite.wav"
    soundfile.write(path, tone(16_000, 2.0, 2) * opposite, 16_000)
    source = WavSource(WavSettings(path=path, pace="flat_out"))
    for _ in range(2 * SAMPLE_RATE_HZ // FRAME_SAMPLES):
        assert source.read() is not None
    louder = int(np.abs(opposite).argmax()) + 1
    with pytest.raises(SourceError, match=rf"source\.channel.*--channel.* {louder}$"):
        read_all(source)
    source.close()
    frames = read_all(WavSource(WavSettings(path=path, pace="flat_out", channel=louder)))
    assert rms_dbfs(sound_of(frames)) > -20


@pytest.mark.parametrize("channels", [2, 8, 64])
def test_independent_channels_and_a_single_one_that_sounds_do_not_cancel(tmp_path: Path, channels: int) -> None:
    """Noise on every channel, or sound on one of them, is quieter in the mix, and that is no fault."""
    noise = np.random.default_rng(1).normal(scale=0.1, size=(16_000, channels))
    alone = tone(16_000, 1.0, channels) * np.eye(1, channels)
    for name, sound in (("noise.wav", noise), ("alone.wav", alone)):
        soundfile.write(tmp_path / name, sound, 16_000)
        assert flat_out(tmp_path / name)


def test_single_samples_beyond_full_scale_are_clipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """+2 becomes the greatest sample, -2 the least; one line says so."""
    wild = np.repeat(np.float32(0.5), 100 * FRAME_SAMPLES)
    wild[:2] = [2.0, -2.0]
    soundfile.write(tmp_path / "wild.wav", wild, 16_000, subtype="FLOAT")
    assert sound_of(flat_out(tmp_path / "wild.wav"))[:3].tolist() == [32_767, -32_768, 16_384]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "wild.wav" in caplog.text


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("scale", [3.0, 32_768.0, 2.0**31])
def test_a_floating_point_file_on_another_scale_is_scaled_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, subtype: str, scale: float
) -> None:
    """Its waveform stays what it is, by a power of two; one line says so."""
    speech = clip("en_dir-intro")[: 2 * SAMPLE_RATE_HZ] / 32_768
    soundfile.write(tmp_path / "loud.wav", speech * scale, 16_000, subtype=subtype)
    heard = sound_of(flat_out(tmp_path / "loud.wav"))[: len(speech)] / 32_768
    assert np.corrcoef(heard, speech)[0, 1] > 0.999
    assert rms_dbfs(np.rint(heard * 32_768).astype(np.int16)) > -30
    assert len(caplog.records) == 1


def test_what_is_no_number_is_silence_and_an_error_behind_the_sound(tmp_path: Path) -> None:
    """NaN and infinity spoil neither the samples beside them nor the resampler, and numpy does not complain."""
    path = tmp_path / "nan.wav"
    sound = tone(44_100, 1.0)
    sound[22_000:22_010, 0] = [np.nan, np.inf, -np.inf, *([np.nan] * 7)]
    soundfile.write(path, sound, 44_100, subtype="FLOAT")
    source = WavSource(WavSettings(path=path, pace="flat_out"))
    frames: list[AudioFrame] = []
    with pytest.raises(SourceError, match="10 samples are no numbers"):
        frames.extend(iter(source.read, None))
    assert source.read() is None
    source.close()
    assert rms_dbfs(sound_of(frames)) == pytest.approx(-9.0, abs=0.3)


def test_real_time_frames_are_delivered_when_they_would_have_been_captured() -> None:
    """No frame comes before its last sample was 'captured', and 0.5 s of sound takes no less."""
    source = WavSource(WavSettings(path=SPEECH / "en_dir-intro.flac"))
    assert source.live
    began = time.monotonic()
    while (frame := source.read()) and frame.end <= SAMPLE_RATE_HZ // 2:
        assert time.monotonic_ns() >= frame.captured_ns
    assert time.monotonic() - began >= 0.5
    source.close()


def test_a_reader_who_was_late_catches_up_without_drift() -> None:
    """After a delay the overdue frames come at once: pace is kept against the start, not against the last frame."""
    hour_ns = 3_600 * 10**9
    times_ns = itertools.chain([0, 32_000_000], itertools.repeat(hour_ns))  # after the first frame, an hour passes
    source = WavSource(WavSettings(path=SPEECH / "en_dir-intro.flac"), clock=lambda: next(times_ns))
    frames = [frame for frame in itertools.islice(iter(source.read, None), 15) if frame]
    source.close()
    steps = {later.captured_ns - earlier.captured_ns for earlier, later in itertools.pairwise(frames)}
    assert (len(frames), steps) == (15, {32_000_000})


def test_paced_and_flat_out_deliver_the_same_frames(tmp_path: Path) -> None:
    """But for the moment of delivery there is no difference."""
    path = tmp_path / "short.wav"
    soundfile.write(path, clip("en_dir-intro")[:9_000], 16_000)
    paced, fast = read_all(WavSource(WavSettings(path=path))), flat_out(path)
    assert [(f.position, f.pcm.tobytes()) for f in paced] == [(f.position, f.pcm.tobytes()) for f in fast]
    steps = {later.captured_ns - earlier.captured_ns for earlier, later in itertools.pairwise(paced)}
    assert steps == {32_000_000}


def test_close_wakes_a_waiting_read() -> None:
    """A read that waits for its moment returns None as soon as the source is closed; so do all later ones."""
    times_ns = itertools.chain([0], itertools.repeat(-60_000_000_000))  # the first frame is due in a minute
    source = WavSource(WavSettings(path=SPEECH / "en_dir-intro.flac"), clock=lambda: next(times_ns))
    got: list[AudioFrame | None] = []

    def read_to_the_end() -> None:
        while frame := source.read():
            got.append(frame)
        got.append(None)

    reader = threading.Thread(target=read_to_the_end)
    reader.start()
    time.sleep(0.2)
    source.close()
    reader.join(30.0)
    assert not reader.is_alive()
    assert got[-1] is None
    assert source.read() is None
    source.close()


def test_nothing_but_a_block_is_held_in_memory(tmp_path: Path) -> None:
    """An hour of sound is not read ahead: after the first frame, little more than a block of it has been decoded."""
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 16_000, np.int16))
    source = WavSource(WavSettings(path=path, pace="flat_out"))
    tracemalloc.start()
    try:
        for _ in range(100):
            source.read()
        _now_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        source.close()
    assert peak_bytes < 2_000_000, "an hour takes 115 MB"


def open_descriptors() -> int:
    """How many files this process holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no recordings, with what the message has to say of them."""
    flac = (SPEECH / "en_dir-intro.flac").read_bytes()
    (folder / "empty.wav").touch()
    (folder / "words.wav").write_text("these are not samples " * 100)
    (folder / "header.flac").write_bytes(flac[:30])
    soundfile.write(folder / "no-sound.wav", np.zeros(0, np.int16), 16_000)
    soundfile.write(folder / "slow.wav", np.zeros(1000, np.int16), 10)
    return {
        "absent": (folder / "absent.wav", "no such file"),
        "folder": (folder, "is a directory"),
        "empty": (folder / "empty.wav", "is empty"),
        "words": (folder / "words.wav", "not a sound file"),
        "header": (folder / "header.flac", "not a sound file, or damaged"),
        "device": (Path("/dev/zero"), "no file"),
        "no sound": (folder / "no-sound.wav", "holds no sound"),
        "slow": (folder / "slow.wav", "10 Hz"),
    }


@pytest.mark.parametrize("case", ["absent", "folder", "empty", "words", "header", "device", "no sound", "slow"])
def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    """The line names the file, what is wrong with it, and what can be read; no descriptor is left open."""
    path, complaint = broken_files(tmp_path)[case]
    open_before = open_descriptors()
    with pytest.raises(SourceError) as raised:
        WavSource(WavSettings(path=path))
    message = str(raised.value)
    assert str(path) in message
    assert complaint in message
    assert "WAV, FLAC, OGG and MP3" in message
    assert "\n" not in message
    assert open_descriptors() == open_before


def test_the_name_does_not_decide_what_a_file_is(tmp_path: Path) -> None:
    """A WAV file called `.raw` or `.txt` is read all the same."""
    for name in ("sound.raw", "sound.txt"):
        soundfile.write(tmp_path / name, clip("en_dir-intro"), 16_000, format="WAV")
        assert np.array_equal(sound_of(flat_out(tmp_path / name))[: len(clip("en_dir-intro"))], clip("en_dir-intro"))
