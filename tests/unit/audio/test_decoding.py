"""Recordings are read to their end, whatever their header says: on real files with the faults that real ones have."""

import io
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from agent.audio.frames import FULL_SCALE, SAMPLE_RATE_HZ, Pcm16
from agent.audio.wav import Recording
from agent.config.settings import WavSettings
from agent.errors import SourceError
from tests.support.clips import clip

ONE = clip("en_dir-intro")[:50_000]
OTHER = clip("en_dir-intro")[60_000:110_000]
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf59.27.100\0"
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\4\0\0" + bytes([0, 0, 8, 0]) + b"TIT2" + bytes(1_020)
APE_FOOTER = b"APETAGEX" + struct.pack("<IIII", 2_000, 532, 1, 0x8000_0000) + bytes(8)
APE = b"APETAGEX" + struct.pack("<IIII", 2_000, 532, 1, 0xA000_0000) + bytes(8) + bytes(500) + APE_FOOTER
PARTS = {"RIFF": "<I", "RIFX": ">I", "AIFF": ">I", "W64": "<Q", "CAF": ">Q", "AU": ">I", "RF64": "<Q"}
"""How each container writes the length of its sound."""


def encoded(
    pcm: Pcm16, kind: str, subtype: str | None = None, rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1
) -> bytes:
    """`pcm` as a file of a format of libsndfile; MP3 with a variable bit rate."""
    buffer = io.BytesIO()
    samples = np.repeat(pcm[:, None] / FULL_SCALE, channels, axis=1)
    variable = {"compression_level": 0.5, "bitrate_mode": "VARIABLE"} if kind == "MP3" else {}
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype, **variable)
    return buffer.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """An MP3 without its first frame, which tells its length."""
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    start = mp3.rindex(b"\xff", 0, tag)
    return mp3[mp3.index(mp3[start : start + 2], tag) :]


def read(path: Path) -> tuple[Pcm16, str]:
    """All samples, and what is wrong with them (empty if nothing is)."""
    recording = Recording(WavSettings(path=path))
    try:
        pcm = np.concatenate([*recording.chunks()])
        recording.check()
    except SourceError as error:
        return pcm, str(error)
    finally:
        recording.close()
    return pcm, ""


def read_bytes(folder: Path, data: bytes) -> tuple[Pcm16, str]:
    """The same for a file with `data` in it."""
    (folder / "recording").write_bytes(data)
    return read(folder / "recording")


def likeness(heard: Pcm16, said: Pcm16, start: int) -> float:
    """The correlation of `said` with what was heard at its place, give or take 0.15 s."""
    reach = 2_400
    window = heard[max(0, start - reach) : start + len(said) + reach].astype(np.float64)
    size = 1 << (len(window) + len(said)).bit_length()
    spectrum = np.fft.rfft(window, size) * np.conj(np.fft.rfft(said.astype(np.float64), size))
    return float(np.fft.irfft(spectrum).max() / (np.linalg.norm(said.astype(np.float64)) * np.linalg.norm(window)))


# The length in the header is a hint.


def with_length(data: bytes, container: str, length: int) -> bytes:
    """The file with another length of its sound in the header; what the length counts besides is added."""
    marker, offset, extra = {
        "AIFF": (b"SSND", 4, 8),
        "W64": (b"data\xf3", 16, 24),
        "CAF": (b"data\0", 4, 4),
        "AU": (b".snd", 8, 0),
        "RF64": (b"ds64", 16, 0),
    }.get(container, (b"data", 4, 0))
    at = data.index(marker) + offset
    limit = (1 << 8 * struct.calcsize(PARTS[container])) - 1
    field = struct.pack(PARTS[container], min(length + extra, limit))
    return data[:at] + field + data[at + len(field) :]


def container(kind: str, subtype: str = "PCM_16") -> bytes:
    """`ONE` in a container."""
    if kind == "RIFX":
        buffer = io.BytesIO()
        soundfile.write(buffer, ONE, SAMPLE_RATE_HZ, format="WAV", subtype=subtype, endian="BIG")
        return buffer.getvalue()
    return encoded(ONE, "WAV" if kind == "RIFF" else kind, subtype)


@pytest.mark.parametrize("length", [0, 1, 44, 1_001, 50_000, 99_900, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF, 1 << 64])
@pytest.mark.parametrize("kind", PARTS)
def test_a_wrong_length_in_the_header_costs_no_sample(tmp_path: Path, kind: str, length: int) -> None:
    """As killed recorders and pipes leave it: too small, odd, 0, or "unknown"; and there is no complaint."""
    pcm, problem = read_bytes(tmp_path, with_length(container(kind), kind, length))
    assert np.array_equal(pcm, ONE)
    assert not problem


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"]
)
def test_every_coding_of_samples_is_read_with_a_right_and_with_a_wrong_length(tmp_path: Path, subtype: str) -> None:
    """24 bits, 8 bits, floating point, mu-law, A-law and ADPCM: the same samples, and they are those of the speech."""
    data = container("RIFF", subtype)
    right, no_problem = read_bytes(tmp_path, data)
    wrong, no_problem_either = read_bytes(tmp_path, with_length(data, "RIFF", 1_001))
    assert np.array_equal(right[: len(ONE)], wrong[: len(ONE)])
    assert np.corrcoef(right[: len(ONE)], ONE)[0, 1] > 0.98
    assert (no_problem, no_problem_either) == ("", "")


def extensible(length: int) -> bytes:
    """`ONE` with a header of WAVE_FORMAT_EXTENSIBLE."""
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4)
    form += bytes.fromhex("0100000000001000800000aa00389b71")
    return (
        b"RIFF\0\0\0\0WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", length)
        + ONE.tobytes()
    )


@pytest.mark.parametrize("length", [0, 77, 100_000])
def test_an_extensible_header_may_be_wrong_too(tmp_path: Path, length: int) -> None:
    """Also where the length of the whole file is 0."""
    pcm, problem = read_bytes(tmp_path, extensible(length))
    assert np.array_equal(pcm, ONE)
    assert not problem


def test_half_a_sample_at_the_end_is_dropped(tmp_path: Path) -> None:
    """A recorder that is killed does not care for boundaries."""
    pcm, problem = read_bytes(tmp_path, with_length(container("RIFF"), "RIFF", 0) + b"\1")
    assert np.array_equal(pcm, ONE)
    assert not problem


@pytest.mark.parametrize("behind", [LIST, b"id3 " + struct.pack("<I", 20) + b"ID3" + bytes(17), ID3V1, ID3V2, b"\0"])
def test_what_follows_the_sound_in_a_wav_is_not_heard(tmp_path: Path, behind: bytes) -> None:
    """Chunks and tags are neither sound nor sound that was not read."""
    pcm, problem = read_bytes(tmp_path, container("RIFF") + behind)
    assert np.array_equal(pcm, ONE)
    assert not problem


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_an_odd_length_with_chunks_behind_it_is_believed(tmp_path: Path, padding: bytes) -> None:
    """With the byte of padding that the format asks for, or without."""
    data = container("RIFF", "PCM_U8")
    data = with_length(data, "RIFF", len(ONE) - 1)[:-1] + padding + LIST
    pcm, problem = read_bytes(tmp_path, data)
    assert len(pcm) == len(ONE) - 1
    assert not problem


@pytest.mark.parametrize("kind", PARTS)
def test_sound_that_the_header_announces_and_that_is_not_there_is_missed(tmp_path: Path, kind: str) -> None:
    """What is there is delivered, and the message names both lengths."""
    data = container(kind)
    pcm, problem = read_bytes(tmp_path, data[:40_000])
    assert 15_000 < len(pcm) <= 20_000
    assert np.array_equal(pcm, ONE[: len(pcm)])
    assert str(2 * len(ONE)) in problem
    assert str(2 * len(pcm)) in problem


@pytest.mark.parametrize("total", [0, 1_000, 10_000_000])
def test_the_number_of_samples_in_a_flac_is_not_believed(tmp_path: Path, total: int) -> None:
    """Encoders that write to a pipe cannot know it; others are wrong."""
    data = bytearray(encoded(ONE, "FLAC"))
    data[22:26] = struct.pack(">I", total)
    pcm, problem = read_bytes(tmp_path, bytes(data))
    assert np.array_equal(pcm, ONE)
    assert not problem


def test_an_mp3_with_a_variable_bit_rate_and_no_length_is_read_to_its_end(tmp_path: Path) -> None:
    """The first frames tell little of the others: silence takes a fraction of what speech does."""
    quiet_first = np.concatenate([np.zeros(SAMPLE_RATE_HZ, np.int16), ONE])
    mp3 = encoded(quiet_first, "MP3")
    pcm, problem = read_bytes(tmp_path, without_xing(mp3))
    assert len(pcm) == pytest.approx(len(quiet_first), abs=3_000)
    assert likeness(pcm, ONE, SAMPLE_RATE_HZ) > 0.9
    assert not problem


def test_the_length_in_an_mp3_is_not_believed(tmp_path: Path) -> None:
    """A header that tells of 10 frames, and one of another file."""
    mp3 = encoded(ONE, "MP3")
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    lying = mp3[: tag + 8] + struct.pack(">I", 10) + mp3[tag + 12 :]
    longer = encoded(OTHER[:10_000], "MP3") + without_xing(mp3)
    for data, start in ((lying, 0), (longer, 10_000)):
        pcm, problem = read_bytes(tmp_path, data)
        assert likeness(pcm, ONE, start) > 0.9
        assert not problem


# Several recordings in one file.

JOINED: dict[str, Callable[[Pcm16], bytes]] = {
    "wav": lambda pcm: encoded(pcm, "WAV"),
    "wav with a chunk": lambda pcm: encoded(pcm, "WAV") + LIST,
    "aiff": lambda pcm: encoded(pcm, "AIFF"),
    "flac": lambda pcm: encoded(pcm, "FLAC"),
    "flac with tags": lambda pcm: ID3V2 + encoded(pcm, "FLAC") + ID3V1,
    "vorbis": lambda pcm: encoded(pcm, "OGG", "VORBIS"),
    "opus": lambda pcm: encoded(pcm, "OGG", "OPUS"),
    "mp3": lambda pcm: encoded(pcm, "MP3"),
    "mp3 with tags": lambda pcm: ID3V2 + encoded(pcm, "MP3") + ID3V1,
    "mp3 without a length": lambda pcm: without_xing(encoded(pcm, "MP3")),
    "mp3 with a length of its own only in the second": lambda pcm: (
        without_xing(encoded(pcm, "MP3")) if pcm is ONE else encoded(pcm, "MP3")
    ),
    "another rate in the second": lambda pcm: (
        encoded(pcm, "MP3") if pcm is ONE else encoded(np.repeat(pcm, 3), "MP3", rate_hz=48_000, channels=2)
    ),
    "another rate in the second, without a length": lambda pcm: without_xing(
        encoded(pcm, "MP3") if pcm is ONE else encoded(np.repeat(pcm, 3), "MP3", rate_hz=48_000, channels=2)
    ),
    "vorbis, then opus": lambda pcm: encoded(pcm, "OGG", "VORBIS" if pcm is ONE else "OPUS"),
}


@pytest.mark.parametrize("kind", JOINED)
def test_files_one_behind_the_other_are_all_heard(tmp_path: Path, kind: str) -> None:
    """`cat one other one`: all three at their places, whatever their rates, and without a complaint."""
    parts = [ONE, OTHER, ONE]
    pcm, problem = read_bytes(tmp_path, b"".join(JOINED[kind](part) for part in parts))
    assert not problem
    assert len(pcm) == pytest.approx(sum(map(len, parts)), abs=7_000)
    for number, part in enumerate(parts):
        assert likeness(pcm[number * (len(pcm) - 150_000) // 3 :], part, number * 50_000) > 0.85, number


@pytest.mark.parametrize("behind", [ID3V1, APE, APE + ID3V1, bytes(3_000)])
@pytest.mark.parametrize("kind", ["mp3", "mp3 without a length", "flac"])
def test_tags_and_padding_at_the_end_are_no_damage(tmp_path: Path, kind: str, behind: bytes) -> None:
    """The samples are those of the same file without them."""
    data = JOINED[kind](ONE)
    pcm, no_problem = read_bytes(tmp_path, data)
    tagged, no_problem_either = read_bytes(tmp_path, ID3V2 + data + behind)
    assert np.array_equal(pcm, tagged)
    assert (no_problem, no_problem_either) == ("", "")


# Damage.

DAMAGED = ["flac", "vorbis", "opus", "mp3", "mp3 without a length"]


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_cut_off_is_read_up_to_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Then comes one line that says so, and libraries add nothing to it."""
    data = JOINED[kind](ONE)
    pcm, problem = read_bytes(tmp_path, data[: len(data) * 2 // 3])
    assert 10_000 < len(pcm) < 45_000
    assert likeness(pcm, ONE[:8_000], 0) > 0.5
    assert "cut off" in problem
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("garbage", [bytes(2_000), bytes(np.random.default_rng(0).integers(0, 256, 2_000, np.uint8))])
@pytest.mark.parametrize("kind", DAMAGED)
def test_sound_behind_damage_is_heard(tmp_path: Path, kind: str, garbage: bytes) -> None:
    """Something was written over the middle of a file: the end of it is there, and one line says that some is not."""
    data = JOINED[kind](np.concatenate([OTHER, ONE]))
    middle = len(data) // 2
    pcm, problem = read_bytes(tmp_path, data[:middle] + garbage + data[middle + len(garbage) :])
    assert likeness(pcm, ONE[-12_000:], len(pcm) - 12_000) > 0.5
    assert "damaged" in problem


def test_a_second_recording_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The first one is heard."""
    data = encoded(ONE, "OGG", "VORBIS")
    pcm, problem = read_bytes(tmp_path, data + data[:40])
    assert len(pcm) == len(ONE)
    assert str(len(data)) in problem


# Where a recording comes from.


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "vorbis"])
def test_a_pipe_is_read_to_its_end(tmp_path: Path, kind: str) -> None:
    """What a FIFO delivers in small pieces is what is in the file."""
    data, fifo = JOINED[kind](ONE), tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as file:
            for start in range(0, len(data), 5_000):
                file.write(data[start : start + 5_000])

    writer = threading.Thread(target=write)
    writer.start()
    piped, no_problem = read(fifo)
    writer.join()
    pcm, no_problem_either = read_bytes(tmp_path, data)
    assert np.array_equal(piped, pcm)
    assert (no_problem, no_problem_either) == ("", "")


def test_a_file_that_grows_while_it_is_read_is_read_to_its_new_end(tmp_path: Path) -> None:
    """As a recorder writes it: the length in the header is 0 until the end."""
    path = tmp_path / "growing.wav"
    data = with_length(container("RIFF"), "RIFF", 0)
    path.write_bytes(data[:60_001])
    recording = Recording(WavSettings(path=path))
    chunks = recording.chunks()
    first = next(chunks)
    with path.open("ab") as file:
        file.write(data[60_001:])
    assert np.array_equal(np.concatenate([first, *chunks]), ONE)
    recording.check()
    recording.close()


def test_an_empty_pipe_is_refused(tmp_path: Path) -> None:
    """As an empty file is."""
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b""))
    writer.start()
    with pytest.raises(SourceError, match="is empty"):
        Recording(WavSettings(path=tmp_path / "fifo"))
    writer.join()


# What libsndfile does not know.

OTHERS = {"mp4": ("aac", "fltp"), "adts": ("aac", "fltp"), "webm": ("libopus", "flt"), "matroska": ("pcm_s16le", "s16")}


def by_pyav(path: Path, kind: str, pcm: Pcm16, rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Write `pcm` with PyAV, at another sampling rate if wanted."""
    import av  # noqa: PLC0415 - an extra

    codec, form = OTHERS[kind]
    with av.open(str(path), "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        resampler = av.AudioResampler(format=form, layout="mono", rate=rate_hz, frame_size=320)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None]), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_read_with_pyav(tmp_path: Path, kind: str) -> None:
    """M4A, AAC, WebM and Matroska, from a file or in pieces, to their end."""
    by_pyav(tmp_path / "recording", kind, ONE)
    pcm, problem = read(tmp_path / "recording")
    assert len(pcm) == pytest.approx(len(ONE), abs=3_000)
    assert likeness(pcm, ONE, 0) > 0.8
    assert not problem


def test_joined_aac_of_different_rates_is_heard(tmp_path: Path) -> None:
    """Each part at its place."""
    by_pyav(tmp_path / "one", "adts", ONE)
    by_pyav(tmp_path / "other", "adts", OTHER, rate_hz=48_000)
    pcm, problem = read_bytes(tmp_path, (tmp_path / "one").read_bytes() + (tmp_path / "other").read_bytes())
    assert len(pcm) == pytest.approx(len(ONE) + len(OTHER), abs=6_000)
    assert likeness(pcm, OTHER, len(pcm) - len(OTHER)) > 0.8
    assert not problem


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_named_where_there_is_no_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The message names the format, the command that converts it, and the extra."""
    path = tmp_path / "a recording"
    by_pyav(path, kind, ONE)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError) as raised:
        read(path)
    name = {"mp4": "M4A", "adts": "AAC", "webm": "WebM", "matroska": "WebM"}[kind]
    for part in (name, f"ffmpeg -i '{path}'", "faster-whisper"):
        assert part in str(raised.value)


def test_a_matroska_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    """Matroska tells its length at its beginning; then comes one line that says how much is missing."""
    by_pyav(tmp_path / "whole", "matroska", ONE)
    data = (tmp_path / "whole").read_bytes()
    pcm, problem = read_bytes(tmp_path, data[: len(data) // 2])
    assert 10_000 < len(pcm) < 40_000
    assert "cut off" in problem
