"""Compare spoken words with transcribed words."""

import re


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def errors(expected: str, heard: str) -> int:
    """Fewest words to insert, delete or replace (Levenshtein distance over words)."""
    reference, hypothesis = words(expected), words(heard)
    row = list(range(len(hypothesis) + 1))
    for said_index, said in enumerate(reference, start=1):
        diagonal, row[0] = row[0], said_index
        for index, word in enumerate(hypothesis, start=1):
            substituted = diagonal + (word != said)
            diagonal = row[index]
            row[index] = min(substituted, row[index] + 1, row[index - 1] + 1)
    return row[-1]
