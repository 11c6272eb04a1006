"""Read the clips to transcribe from manifests.

A manifest is a TAB-separated table without quoting: columns id, file, seconds, language, text, speaker, note. `file` is
relative to the manifest. The name of the manifest's folder is the name of the set. Language `none` marks sound without
speech: a system invents every word that it finds there.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.audio.wav import Recording
from agent.config.settings import WavSettings
from agent.errors import ConfigError

NO_SPEECH = "none"
MANIFEST_NAME = "manifest.tsv"
Item = TypeVar("Item")
Key = TypeVar("Key")
_COLUMNS = {"id", "file", "seconds", "language", "text"}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording with its reference."""

    set_name: str
    id: str
    path: Path
    language: str
    """ISO 639-1, or `none` without speech."""
    text: str
    """The spoken words; empty without speech."""
    duration_s: float
    start_s: float | None = None
    """Start in the file, for a clip that is a part of its file; None for the whole file."""

    @property
    def key(self) -> str:
        """Identity within a run."""
        return f"{self.set_name}/{self.id}"

    @property
    def decoded_as(self) -> str:
        """The language that systems are told: `en` without speech."""
        return "en" if self.language == NO_SPEECH else self.language


def load_pcm(clip: Clip) -> Pcm16:
    """Read a clip: shape (n,), int16, 16 kHz. Other rates are resampled, and channels averaged.

    Raises:
        SourceError: the file is missing, not audio, or cannot be read to its end.
    """
    # libsndfile calls back to Python, where an interrupt (Ctrl-C) would be lost: so it does not run in this thread.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="load") as reader:
        return reader.submit(_read, clip).result()


def _read(clip: Clip) -> Pcm16:
    recording = Recording(WavSettings(path=clip.path, pace="flat_out"))
    try:
        pcm = np.concatenate([*recording.chunks()])
        recording.check()
    finally:
        recording.close()
    if clip.start_s is None:
        return pcm
    start = round(clip.start_s * SAMPLE_RATE_HZ)
    return pcm[start : start + round(clip.duration_s * SAMPLE_RATE_HZ)]


def read_clips(places: Sequence[Path]) -> list[Clip]:
    """Return the clips from manifests, folders with a manifest, and folders of such folders.

    Clips with speech but without a usable reference (no text, or a JSON of slots) are left out.

    Raises:
        ConfigError: no clip is there, or a manifest is not in the format above.
    """
    clips = [
        _clip(manifest, row) for place in places for manifest in _manifests(place) for row in _table(manifest, _COLUMNS)
    ]
    clips = [clip for clip in clips if clip.language == NO_SPEECH or (clip.text and not clip.text.startswith("{"))]
    if not clips:
        raise ConfigError(f"{', '.join(map(str, places))}: no clip with a reference in there")
    return clips


def refuse_missing(clips: Iterable[Clip]) -> None:
    """Make sure that the files of all clips exist, before hours of measuring.

    Raises:
        ConfigError: files are missing.
    """
    paths = dict.fromkeys(clip.path for clip in clips)
    if missing := [path for path in paths if not path.is_file()]:
        raise ConfigError(
            f"{missing[0]}: in the manifest, but not on the disk ({len(missing)} of {len(paths)} files are missing): "
            "correct the manifest, or leave out the set with --skip"
        )


def demo_clips() -> list[Clip]:
    """Return the sentences of the recording that is bundled with the package."""
    folder = Path(str(resources.files("agent") / "clips"))
    clips = []
    for index, row in enumerate(_table(folder / "demo.tsv", {"start_s", "end_s", "text"}), start=1):
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
        clips.append(
            Clip("demo", f"demo-{index:02}", folder / "demo.flac", "en", row["text"], end_s - start_s, start_s)
        )
    return clips


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by key; keys and items keep their order."""
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def spread(clips: Sequence[Clip], limit: int | None) -> list[Clip]:
    """Return at most `limit` clips: the same share of every set (at least one), evenly spaced within it."""
    if limit is None or len(clips) <= limit:
        return list(clips)
    by_set = grouped(clips, lambda clip: clip.set_name)
    picked: list[Clip] = []
    for index, group in enumerate(by_set.values()):
        quota = (limit - len(picked)) // (len(by_set) - index)
        count = min(len(group), max(1, quota)) if len(picked) < limit else 0
        picked += [group[position * len(group) // count] for position in range(count)]
    return picked


def _manifests(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = list(place.glob(MANIFEST_NAME)) or sorted(place.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise ConfigError(f"{place}: no {MANIFEST_NAME} there; give a manifest, or a folder that has one")
    return found


def _clip(manifest: Path, row: dict[str, str]) -> Clip:
    try:
        duration_s = float(row["seconds"])
    except ValueError:
        raise ConfigError(f"{manifest}: row {row['id']}: seconds is {row['seconds']!r}, not a number") from None
    language = row["language"]
    text = "" if language == NO_SPEECH else row["text"].strip()
    return Clip(manifest.parent.name, row["id"], manifest.parent / row["file"], language, text, duration_s)


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
