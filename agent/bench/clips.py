"""What is transcribed: clips, listed in manifests.

A manifest is a TAB-separated table without quoting: columns id, file, seconds, language, text, speaker, note. `file` is
relative to the manifest; the name of its folder is the name of the set. Language `none` means that nobody speaks: every
word that a system finds there is invented.
"""

import csv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.audio.wav import Recording
from agent.config.settings import WavSettings
from agent.errors import ConfigError

NO_SPEECH = "none"
MANIFEST_NAME = "manifest.tsv"
_COLUMNS = {"id", "file", "seconds", "language", "text"}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording with its reference."""

    set_name: str
    id: str
    path: Path
    language: str
    """ISO 639-1, or `none`: no speech."""
    text: str
    """What is said; empty where nobody speaks."""
    duration_s: float
    start_s: float = 0.0
    """Where it begins in the file; its end is `start_s + duration_s`."""
    whole_file: bool = True
    """False if it is a part of its file."""

    @property
    def key(self) -> str:
        """Identity within a run."""
        return f"{self.set_name}/{self.id}"

    @property
    def decoded_as(self) -> str:
        """The language in which it is decoded: `en` where nobody speaks."""
        return "en" if self.language == NO_SPEECH else self.language


def load_pcm(clip: Clip) -> Pcm16:
    """Read a clip: shape (n,), int16, 16 kHz; other rates are resampled and channels averaged.

    Raises:
        SourceError: the file is missing, not audio, or cannot be read to its end.
    """
    # Not in this thread: libsndfile calls back to Python, where an interrupt (Ctrl-C) would be lost.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="load") as reader:
        return reader.submit(_read, clip).result()


def _read(clip: Clip) -> Pcm16:
    recording = Recording(WavSettings(path=clip.path, pace="flat_out"))
    try:
        pcm = np.concatenate([*recording.chunks()])
        recording.check()
    finally:
        recording.close()
    start = round(clip.start_s * SAMPLE_RATE_HZ)
    return pcm if clip.whole_file else pcm[start : start + round(clip.duration_s * SAMPLE_RATE_HZ)]


def read_clips(places: Sequence[Path]) -> list[Clip]:
    """Every clip with a usable reference from manifests, folders with a manifest, and folders of such folders.

    Left out are clips in which somebody speaks but whose words are not known (no text, or a JSON of slots).

    Raises:
        ConfigError: nothing there, or a manifest is not in the format above.
    """
    clips = [clip for place in places for manifest in _manifests(place) for clip in _rows(manifest)]
    if not clips:
        raise ConfigError(f"{', '.join(map(str, places))}: no clip with a reference in there")
    return clips


def refuse_missing(clips: Iterable[Clip]) -> None:
    """Say before hours of measuring what would be missing in them.

    Raises:
        ConfigError: files of clips are not there.
    """
    paths = dict.fromkeys(clip.path for clip in clips)
    if missing := [path for path in paths if not path.is_file()]:
        raise ConfigError(
            f"{missing[0]}: in the manifest, but not on the disk ({len(missing)} of {len(paths)} files are missing): "
            "correct the manifest, or leave out the set with --skip"
        )


def demo_clips() -> list[Clip]:
    """The sentences of the recording that is bundled with the package."""
    folder = Path(str(resources.files("agent") / "clips"))
    rows = _table(folder / "demo.tsv", {"start_s", "end_s", "text"})
    return [
        Clip(
            set_name="demo",
            id=f"demo-{index:02}",
            path=folder / "demo.flac",
            language="en",
            text=row["text"],
            start_s=float(row["start_s"]),
            duration_s=float(row["end_s"]) - float(row["start_s"]),
            whole_file=False,
        )
        for index, row in enumerate(rows, start=1)
    ]


def spread(clips: Iterable[Clip], limit: int | None) -> list[Clip]:
    """At most `limit` clips: the same share of every set (at least one), evenly spaced within it."""
    chosen = list(clips)
    if limit is None or len(chosen) <= limit:
        return chosen
    by_set: dict[str, list[Clip]] = {}
    for clip in chosen:
        by_set.setdefault(clip.set_name, []).append(clip)
    picked: list[Clip] = []
    for index, group in enumerate(by_set.values()):
        quota = (limit - len(picked)) // (len(by_set) - index)
        count = min(len(group), max(1, quota)) if len(picked) < limit else 0
        picked += [group[position * len(group) // count] for position in range(count)]
    return picked


def _manifests(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if (place / MANIFEST_NAME).is_file():
        return [place / MANIFEST_NAME]
    found = sorted(place.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise ConfigError(f"{place}: no {MANIFEST_NAME} there; give a manifest, or a folder that has one")
    return found


def _rows(manifest: Path) -> list[Clip]:
    clips = [_clip(manifest, row) for row in _table(manifest, _COLUMNS)]
    return [clip for clip in clips if clip.language == NO_SPEECH or (clip.text and not clip.text.startswith("{"))]


def _clip(manifest: Path, row: dict[str, str]) -> Clip:
    try:
        duration_s = float(row["seconds"])
    except ValueError:
        raise ConfigError(f"{manifest}: row {row['id']}: seconds is {row['seconds']!r}, not a number") from None
    return Clip(
        set_name=manifest.parent.name,
        id=row["id"],
        path=manifest.parent / row["file"],
        language=row["language"],
        text="" if row["language"] == NO_SPEECH else row["text"].strip(),
        duration_s=duration_s,
    )


def _table(path: Path, required: set[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            missing = required - set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a manifest ({error})") from None
    if missing:
        raise ConfigError(f"{path}: column {min(missing)} is missing; it needs id, file, seconds, language, text")
    return rows
