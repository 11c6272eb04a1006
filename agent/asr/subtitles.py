"""Texts from subtitles that Whisper writes for sounds without words: notes, credits, the ends of videos.

The texts themselves are in `subtitles.toml`, by language.
"""

import tomllib
from enum import Enum, auto
from pathlib import Path
from typing import Final

import regex

_TABLES: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).values()


def _listed(kind: str) -> list[str]:
    return [text for language in _TABLES for text in language.get(kind, ())]


_CREDIT: Final = regex.compile("|".join(regex.escape(text).replace(r"\*", ".*") for text in _listed("credits")))
_SIGN_OFFS: Final = frozenset(_listed("sign_offs"))
_THANKS: Final = frozenset(_listed("thanks"))
_SOUNDS: Final = frozenset(_listed("sounds"))
_SOUND_ENDINGS: Final = tuple(sound for sound in _SOUNDS if len(sound.encode()) > len("beep"))
"""Of compounds such as Titelmusik and 観客の拍手."""
_LONGEST_NOTE_WORDS: Final = 4
_LONGEST_LABEL_WORDS: Final = 3

_SURE_NOTE: Final = regex.compile(
    r"\[[^\[\]]*\]|\{[^{}]*\}|［[^［］]*］|｛[^｛｝]*｝|【[^【】]*】|〔[^〔〕]*〕|〖[^〖〗]*〗|\*+[^*]*\*+|<[^<>\s][^<>]*>"
)
"""Text in these brackets was not said, in any place; only a number was."""
_NOTE: Final = regex.compile(r"\((?P<note>[^()]*)\)|（(?P<note>[^（）]*)）|<(?P<note>[^<>]*)>|＜(?P<note>[^＜＞]*)＞")
"""Text in these may be speech within a sentence."""
_SET_OFF: Final = regex.compile(r"(?<!\S)[-–—~_#=«‹〈《]+(?P<note>[^\s\p{P}][^\p{P}]*)[-–—~_#=»›〉》]+(?!\w)")
"""Dashes and quotation marks: a note only around the name of a sound."""
_NOTES_OF_MUSIC: Final = regex.compile(r"[♩♪♫♬♭♮♯]+")
_UNFINISHED: Final = regex.compile(r"[\[［【][^\]］】]{0,20}$|^\s*[\[［【(（][^\]］】)）]*$")
"""A note that the token cap cut short."""
_DECORATED: Final = regex.compile(r"[^\w\s.,;:!?…。、！？'’\"“”„¡¿]")
_ENDS_OF_SENTENCES: Final = ".!?…。！？)）]］】}♪»"
_SENTENCE: Final = regex.compile(r".+?(?:(?<!\b\w)[.!?…]+(?=\s)|[。！？]+|$)\s*", regex.DOTALL)
"""A point behind a single letter ends no sentence."""


class Stock(Enum):
    """A kind of text that Whisper writes for sounds without words."""

    SOUND = auto()
    """Names of sounds: "MUZIEK."."""
    LABEL = auto()
    """A sound described in capitals, as in subtitles: "ТРЕВОЖНАЯ МУЗЫКА"."""
    SIGN_OFF = auto()
    """The end of a video."""
    THANKS = auto()
    """Thanks, a greeting, a sigh."""


def spoken(text: str) -> str:
    """Return `text` without notes on sounds (`[BLANK_AUDIO]`, `（拍手）`, `-Musik-`, `*coughs*`, `♪`) and credits.

    The rest is stripped and its gaps are closed. A rest without a letter or digit (" - ", "...") is no text.
    """
    words = _words_of(text).split()
    if words and _DECORATED.search(text) and all(map(_names_sound, words)):
        return ""
    text = _UNFINISHED.sub(" ", _SURE_NOTE.sub(lambda note: note[0] if _is_number(note[0]) else " ", text))
    text = _NOTES_OF_MUSIC.sub(" ", _SET_OFF.sub(_unless_said, _NOTE.sub(_unless_said, text)))
    sentences = (one for one in _SENTENCE.findall(text) if not _CREDIT.fullmatch(_words_of(one)))
    text = " ".join("".join(sentences).split())
    return text if any(character.isalnum() for character in text) else ""


def is_sung(text: str) -> bool:
    """True if Whisper marks the text as a song."""
    return any(note in text for note in "♩♪♫♬")


def stock(text: str) -> Stock | None:
    """Return the kind of `text`, which may be several sentences of this kind; None for another text."""
    words = _words_of(text).split()
    if words and _SOUNDS.issuperset(words):
        return Stock.SOUND
    if text.isupper() and len(words) <= _LONGEST_LABEL_WORDS and not _SOUNDS.isdisjoint(words):
        return Stock.LABEL
    for said in ({" ".join(words)}, {_words_of(sentence) for sentence in _SENTENCE.findall(text)} - {""}):
        if said and said <= _THANKS | _SIGN_OFFS:
            return Stock.THANKS if said <= _THANKS else Stock.SIGN_OFF
    return None


def _words_of(text: str) -> str:
    """Return the words of `text` in lower case, with one space between two."""
    return " ".join(regex.findall(r"\w+", text.lower()))


def _names_sound(word: str) -> bool:
    return word in _SOUNDS or word.endswith(_SOUND_ENDINGS)


def _is_number(note: str) -> bool:
    """True for the area code of a telephone number."""
    return not regex.search(r"\p{L}", note) and regex.search(r"\d", note) is not None


def _unless_said(note: "regex.Match[str]") -> str:
    """Return a space for a note on a sound, else the text unchanged.

    At the beginning of a sentence, all text in brackets is a note. Elsewhere, and between dashes, only a sound's name.
    """
    before, behind = note.string[: note.start()].rstrip(), note.string[note.end() :]
    words = _words_of(note["note"]).split()
    names_sound = len(words) <= _LONGEST_NOTE_WORDS and any(map(_names_sound, words))
    in_brackets = note.re is _NOTE
    begins = not before or before[-1] in _ENDS_OF_SENTENCES
    attached = behind[:1].isascii() and behind[:1].isalnum()
    is_note = (begins or names_sound) if in_brackets else (begins and names_sound)
    return " " if is_note and not attached and not _is_number(note["note"]) else str(note[0])
