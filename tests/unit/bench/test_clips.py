from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.bench.clips import Clip, demo_clips, load_pcm, read_clips, spread
from agent.errors import ConfigError, SourceError

HEADER = "id\tfile\tseconds\tlanguage\ttext\tspeaker\tnote\n"


def manifest(folder: Path, *rows: str) -> Path:
    """Write a manifest with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.tsv"
    path.write_text(HEADER + "".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def clip(set_name: str, number: int) -> Clip:
    """Some clip."""
    return Clip(set_name, f"{number:03}", Path("x.flac"), "en", "text", 1.0)


def test_quotes_are_part_of_the_text(tmp_path: Path) -> None:
    """The tables are not quoted: a quotation mark is what somebody wrote, and never eats the next row."""
    manifest(tmp_path / "s", 'a\ta.flac\t1.5\ten\t"No, he said\t\t', "b\tb.flac\t2\ten\tyes\t\t")
    first, second = read_clips([tmp_path / "s"])
    assert (first.text, first.key, first.path) == ('"No, he said', "s/a", tmp_path / "s" / "a.flac")
    assert second.duration_s == 2.0


def test_speech_without_a_transcript_is_left_out(tmp_path: Path) -> None:
    """Neither a missing reference nor a JSON of slots can be scored; silence needs no words."""
    manifest(tmp_path, "a\ta.flac\t1\ten\t\t\t", 'b\tb.flac\t1\ten\t{"size": "small"}\t\t', "c\tc.flac\t1\tnone\t\t\t")
    assert [one.id for one in read_clips([tmp_path])] == ["c"]


def test_a_folder_of_sets_gives_all_of_them(tmp_path: Path) -> None:
    """Manifest, set and folder of sets are all understood."""
    one, two = (manifest(tmp_path / name, f"{name}\tx.flac\t1\ten\thello\t\t") for name in ("one", "two"))
    assert {c.set_name for c in read_clips([tmp_path])} == {"one", "two"}
    assert [c.set_name for c in read_clips([two, one.parent])] == ["two", "one"]


@pytest.mark.parametrize("content", ["", "id\tfile\n", HEADER + "a\ta.flac\tlong\ten\thello\t\t\n"])
def test_a_malformed_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    """The message names the file, and what is wrong in it."""
    (tmp_path / "manifest.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"manifest\.tsv"):
        read_clips([tmp_path])


def test_nothing_to_transcribe_is_an_error(tmp_path: Path) -> None:
    """An empty folder does not lead to an empty report."""
    with pytest.raises(ConfigError, match=r"no manifest\.tsv"):
        read_clips([tmp_path])


def test_a_limit_is_shared_by_all_sets() -> None:
    """A small set keeps all its clips, a large one is thinned out evenly."""
    clips = [clip("large", number) for number in range(100)] + [clip("small", number) for number in range(3)]
    picked = spread(clips, 13)
    large = [int(one.id) for one in picked if one.set_name == "large"]
    assert len(picked) <= 13
    assert sum(one.set_name == "small" for one in picked) == 3
    assert large[0] == 0
    assert max(np.diff(large)) - min(np.diff(large)) <= 1
    assert spread(clips, None) == clips


def test_the_bundled_clips_are_cut_from_their_recording() -> None:
    """Each has its words and as much sound as its row says."""
    clips = demo_clips()
    assert clips[0].text.startswith("The conference")
    assert all(len(load_pcm(one)) == pytest.approx(one.duration_s * 16_000, abs=1) for one in clips)


def test_sound_of_another_kind_becomes_16_khz_mono(tmp_path: Path) -> None:
    """A stereo file at 8 kHz keeps its length in seconds and its level."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    soundfile.write(tmp_path / "x.wav", np.stack([tone, tone], axis=1), 8_000)
    pcm = load_pcm(Clip("s", "x", tmp_path / "x.wav", "en", "a", 1.0))
    assert pcm.dtype == np.int16
    assert len(pcm) == 16_000
    assert np.abs(pcm).max() == pytest.approx(16_384, rel=0.02)


def test_what_is_not_audio_is_named(tmp_path: Path) -> None:
    """A text file called FLAC is one clear line."""
    (tmp_path / "x.flac").write_text("hello")
    with pytest.raises(SourceError, match=r"x\.flac"):
        load_pcm(Clip("s", "x", tmp_path / "x.flac", "en", "a", 1.0))


def test_a_clip_that_is_cut_off_is_not_measured(tmp_path: Path) -> None:
    """Half of its words would be missing, and the system would be blamed."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
    soundfile.write(tmp_path / "x.flac", tone, 16_000)
    data = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="cut off"):
        load_pcm(Clip("s", "x", tmp_path / "x.flac", "en", "a", 3.0))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """Spreadsheets put one in front."""
    path = manifest(tmp_path / "s", "a\ta.flac\t1.5\ten\tyes\t\t")
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert [clip.id for clip in read_clips([path])] == ["a"]
