r"""Finds the words and expressions of `publish.keywords` in a text. It keeps no text.

It first brings keyword and text to one form, much like Unicode's NFKC_Casefold (Unicode 16, section 3.13.3). Then it
compares whole words. `docs/mqtt.md` ("How a keyword matches") describes the result for the user.

It needs the package `regex` (3 MB): there, `\w` and `\b` count the vowel signs of Hindi or Thai as part of their
letter, scripts have names, and a search can have a time limit. `re` has none of these.
"""

import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import regex

log = logging.getLogger(__name__)

LONGEST_CHARACTERS: Final = 1_000
"""Fast speech has 25 characters a second, and Whisper takes 30 seconds."""
SEARCH_LIMIT_S: Final = 0.5
"""Limit for one expression in one text. Simple expressions take microseconds; nested repetitions may take years."""

_NAMED: Final = regex.compile(r"(?P<name>[\w -]{1,64})=(?P<rule>.+)", regex.DOTALL)

_IGNORED: Final = regex.compile(r"\p{Default_Ignorable_Code_Point}")
"""Zero-width joiners and spaces, soft hyphens, direction marks."""
_OPTIONAL: Final = regex.compile(r"(?V1)[\p{Mn}&&[\p{InHebrew}\p{InArabic}]]|ـ")
"""Niqqud, harakat and the stretched line: people write a word with or without them."""
_ALIKE: Final = str.maketrans({"ı": "i", "ё": "е", "’": "'", "ʼ": "'", "‘": "'", "‐": "-"})
_DIGIT: Final = regex.compile(r"(?V1)[\p{Nd}--0-9]")
_INNER_APOSTROPHE: Final = regex.compile(r"(?<=\p{Cyrillic})'(?=\p{Cyrillic})|(?<=n)'(?=t\b)")
"""It belongs to the word in м'яч and can't; in l'eau and İstanbul'da it ends one."""
_INNER_HYPHEN: Final = regex.compile(r"(?<=\p{L}\p{M}*)-(?=\p{L})")
_BETWEEN_WORDS: Final = regex.compile(r"(?:^|[^\p{L}\p{M}\p{N}])[^\p{L}\p{N}]*")
"""A mark without a letter belongs to no word."""

_UNSPACED: Final = r"[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}]"
"""Scripts that put no space between words."""
_SPACED: Final = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]"
_GAP: Final = regex.compile(
    rf"(?V1)(?<={_UNSPACED}) | (?={_UNSPACED})|(?<={_UNSPACED})(?={_SPACED})|(?<={_SPACED})(?={_UNSPACED})"
)
"""Places where a space is optional: TVをつけて, TV をつけて."""
_NO_LETTER_TORN_BEFORE: Final = r"(?<![เ-ไເ-ໄ្္])"
"""Thai and Lao write some vowels before their consonant, Khmer and Burmese stack consonants: ปิด is not in เปิด."""
_NO_LETTER_TORN_BEHIND: Final = r"(?!\p{M}|[ะาๅະາ]|[က-အ]့?[္်])"
"""Marks, Thai and Lao vowels behind their consonant, the final consonant of a Burmese syllable."""

_PARTICLES: Final = (
    "의|에게?(?:서)?|한테(?:서)?|께(?:서)?|도|만|뿐|부터|까지|보다|처럼|만큼|대로|마다|하고|밖에|조차|마저|요|입니다"
)
_AFTER_CONSONANT: Final = "을|은|이|과|으로|이랑|이나|이라도|이든지|아|이야|이다|이에요"
_AFTER_VOWEL: Final = "를|는|가|와|로|랑|나|라도|든지|야|예요"
"""Korean particles (josa) by the sound before them. A closed list: 불 is in 불을, and not in 불고기."""
_HANGUL: Final = ("가", "힣")
_FINAL_CONSONANTS: Final = 28
_RIEUL: Final = 8
"""The final consonant ㄹ in the order of Unicode's Hangul syllables; 로 follows it as it follows a vowel."""


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """One entry of `publish.keywords`."""

    name: str
    """Published when it matches."""
    pattern: "regex.Pattern[str]"
    words: str
    """The words to find, folded; empty for an expression, which searches the text as written."""

    def found_in(self, text: str) -> bool:
        """Whether `text` contains it. Give `searchable` text for words, and text in NFC for an expression."""
        try:
            return self.pattern.search(text, timeout=SEARCH_LIMIT_S) is not None
        except TimeoutError:
            log.warning("searching for the keyword %r took over %s s: simplify it", self.name, SEARCH_LIMIT_S)
            return False


def keyword_rules(entries: Iterable[str]) -> tuple[KeywordRule, ...]:
    """Read entries such as `heater off`, `/lights? (on|off)/` or `lights=/lights? on/`.

    Raises:
        ValueError: an entry is empty, not a regular expression, or has the name of another.
    """
    rules = tuple(_rule(entry) for entry in entries)
    names = [rule.name for rule in rules]
    if twice := next((name for name in names if names.count(name) > 1), None):
        msg = f"the keyword {twice!r} is there twice: give each a name of its own"
        raise ValueError(msg)
    return rules


def keywords_in(text: str, rules: Iterable[KeywordRule]) -> tuple[str, ...]:
    """Return the names of the rules that match `text`, in their order."""
    bare, written = searchable(text), unicodedata.normalize("NFC", text)
    return tuple(rule.name for rule in rules if rule.found_in(bare if rule.words else written))


def searchable(text: str) -> str:
    """Return the words of `text` in one form; on a second line, with words around a hyphen as one (Wi-Fi, wifi)."""
    folded = _folded(text)
    return f"{_words(folded)}\n{_words(_INNER_HYPHEN.sub('', folded))}"


def doubt(rule: KeywordRule, *, english_only: bool) -> str:
    """Return why the rule is useless: it can never match, or always does; empty for a useful rule."""
    if not rule.words:
        return "matches every text: write an expression that needs a letter" if rule.found_in("") else ""
    if len(rule.words) > LONGEST_CHARACTERS:
        return f"can never match: a text in which it fits takes longer than Whisper's 30 s ({len(rule.words)} letters)"
    if english_only and regex.search(r"(?V1)[\p{L}--\p{Latin}]", rule.words):
        return "can never match: the model writes English only, and this is another script"
    return ""


def _rule(entry: str) -> KeywordRule:
    name, rule = entry, entry
    if not _is_expression(entry) and (named := _NAMED.fullmatch(entry)):
        name, rule = named["name"].strip(), named["rule"].strip()
    if _is_expression(rule):
        try:
            expression = unicodedata.normalize("NFC", rule[1:-1])
            return KeywordRule(name, regex.compile(expression, regex.IGNORECASE | regex.FULLCASE), words="")
        except regex.error as error:
            msg = f"the keyword {entry!r} is not a regular expression: {error}"
            raise ValueError(msg) from error
    folded = _folded(rule)
    if not (words := _words(folded)):
        msg = f"the keyword {entry!r} has no words: write a word, a phrase, or /an expression/"
        raise ValueError(msg)
    spellings = {_phrase(words), _phrase(_words(_INNER_HYPHEN.sub("", folded)))}
    return KeywordRule(name.strip(), regex.compile("|".join(spellings)), words)


def _is_expression(rule: str) -> bool:
    return len(rule) > 2 and rule.startswith("/") and rule.endswith("/")  # noqa: PLR2004 - two slashes and something


def _folded(text: str) -> str:
    """Return one form for texts that look or read alike."""
    folded = unicodedata.normalize("NFKC", _IGNORED.sub("", text)).casefold().replace("i̇", "i")
    folded = unicodedata.normalize("NFKC", folded).translate(_ALIKE)
    folded = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0], digit[0])), _OPTIONAL.sub("", folded))
    return str(_INNER_APOSTROPHE.sub("", folded))


def _words(folded: str) -> str:
    """Return letters, marks and digits, with one space between words."""
    return str(_BETWEEN_WORDS.sub(" ", folded)).strip()


def _phrase(words: str) -> str:
    """Return a pattern for the whole words `words`, with optional particles, in the form of `searchable`."""
    unspaced = regex.compile(_UNSPACED)
    before = _NO_LETTER_TORN_BEFORE if unspaced.match(words) else rf"(?<!{_SPACED})"
    behind = _NO_LETTER_TORN_BEHIND if unspaced.match(words[-1]) else rf"{_particle(words[-1])}(?!{_SPACED})"
    inner = regex.sub(r"([가-힣])(?= )", lambda end: end[0] + _particle(end[0]), _GAP.sub(" ?", words))
    return f"(?V1){before}{inner}{behind}"


def _particle(last: str) -> str:
    """Return a pattern for the Korean particles that may follow the letter `last`."""
    fitting = f"{_PARTICLES}|{_AFTER_CONSONANT}|{_AFTER_VOWEL}"
    if _HANGUL[0] <= last <= _HANGUL[1]:
        consonant = (ord(last) - ord(_HANGUL[0])) % _FINAL_CONSONANTS
        fitting = f"{_PARTICLES}|{_AFTER_CONSONANT if consonant else _AFTER_VOWEL}"
        fitting += "|로" if consonant == _RIEUL else ""
    return f"(?:(?:{fitting})(?:는|은|도|만|부터|까지)?)?"
