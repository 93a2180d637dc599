"""CoNLL files: a word a line, its tag in the last column, and a blank line after each sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.bounds import SENTENCE_WORDS, WORD_BYTES, TooMuch, lines_of

Sentence = list[tuple[str, str]]
"""Words with their tags."""


class BrokenConll(ValueError):
    """A line that is no word with a tag."""


def read_sentences(path: Path) -> Iterator[Sentence]:
    """What stands between blank lines, of each line the first column and the last."""
    shape = _shape(path)
    sentence: Sentence = []
    for number, line in _lines(path):
        if not line or _is_document_start(line):
            if sentence:
                yield sentence
            sentence = []
        elif shape and not shape.is_comment(line):
            sentence.append(shape.word(line, number))
            if len(sentence) > SENTENCE_WORDS:
                raise TooMuch(f"the sentence at line {number} has more than {SENTENCE_WORDS:,} words: end each with a blank line")
    if sentence:
        yield sentence


@dataclass(frozen=True)
class _Shape:
    """How the lines of a CoNLL file are made: what stands between their columns, and how many there are."""

    has_tabs: bool
    width: int

    def columns(self, line: str) -> list[str]:
        return [column.strip(" ") for column in line.split("\t")] if self.has_tabs else re.split("[ \t]+", line.strip(" \t"))

    def is_comment(self, line: str) -> bool:
        """Not the word `#`, which has as many columns as other words, and a tab where they have tabs."""
        return _looks_like_comment(line) and (self.has_tabs or len(self.columns(line)) != self.width)

    def word(self, line: str, number: int) -> tuple[str, str]:
        columns = self.columns(line)
        if len(columns) != self.width:
            stands = "column" if len(columns) == 1 else "columns"
            between = "tabs" if self.has_tabs else "spaces"
            detail = f"line {number} has {len(columns)} {stands} where the first word has {self.width}, with {between} between"
            raise BrokenConll(f"{detail}: write the word first, its tag last, and a blank line after each sentence")
        word, tag = columns[0], columns[-1]
        if not word or not tag:
            raise BrokenConll(f"line {number} has no {'tag' if word else 'word'}: write the word first, and its tag last")
        return word, tag


def _shape(path: Path) -> _Shape | None:
    """As the first word has it; None where there is no word."""
    for number, line in _lines(path):
        if line and not _is_document_start(line) and not _looks_like_comment(line):
            shape = _Shape("\t" in line.strip(" \t"), 0)
            width = len(shape.columns(line))
            if width < 2:  # noqa: PLR2004 - a word and its tag
                raise BrokenConll(f"line {number} has one column: write the word first, and its tag last")
            return _Shape(shape.has_tabs, width)
    return None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; blank ones are empty. Only a newline ends a line: words may hold other separators."""
    with path.open("rb") as file:
        for number, raw in lines_of(file, WORD_BYTES):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BrokenConll(f"the file is broken: line {number} is no UTF-8") from error
            yield number, line if line.strip(" \t") else ""


def _is_document_start(line: str) -> bool:
    return line.startswith("-DOCSTART-")


def _looks_like_comment(line: str) -> bool:
    return line.startswith("# ") and "\t" not in line
