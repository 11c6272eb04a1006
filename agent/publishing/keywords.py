"""Words and patterns to listen for: what a text has to do with them, decided without keeping anything of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NAMED: Final = re.compile(r"(?P<name>[\w -]{1,64})=(?P<rule>.+)", re.DOTALL)
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """One entry of `publish.keywords`."""

    name: str
    """What is published when it matches."""
    pattern: re.Pattern[str]
    by_words: bool
    """Whether it is looked for in the bare words, without punctuation, or in the text as it is."""

    def found_in(self, text: str) -> bool:
        """Whether somebody said it."""
        return self.pattern.search(_bare(text) if self.by_words else text) is not None


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
    """Names of the rules that `text` matches, in their order."""
    return tuple(rule.name for rule in rules if rule.found_in(text))


def _rule(entry: str) -> KeywordRule:
    name, rule = entry, entry
    if not _is_expression(entry) and (named := _NAMED.fullmatch(entry)):
        name, rule = named["name"].strip(), named["rule"].strip()
    if _is_expression(rule):
        try:
            return KeywordRule(name, re.compile(rule[1:-1], re.IGNORECASE), by_words=False)
        except re.error as error:
            msg = f"the keyword {entry!r} is not a regular expression: {error}"
            raise ValueError(msg) from error
    if not (words := _bare(rule).strip()):
        msg = f"the keyword {entry!r} has no words: write a word, a phrase, or /an expression/"
        raise ValueError(msg)
    return KeywordRule(name.strip(), re.compile(rf" {re.escape(words)} "), by_words=True)


def _is_expression(rule: str) -> bool:
    return len(rule) > 2 and rule.startswith("/") and rule.endswith("/")  # noqa: PLR2004 - two slashes and something


def _bare(text: str) -> str:
    """Words in lower case between single spaces, with one at each end, so that a phrase matches whole words only."""
    return f" {_BETWEEN_WORDS.sub(' ', text.casefold()).strip()} "
