"""What a file holds, as far as a study is checked against it: the rows that can be used, and their labels."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainers.configs import LabelledImages, LabelledText, SourceAndTarget, Splits, TaggedWords, TextOrPairs
from trainers.images import read_images
from trainers.tables import CONLL_COLUMNS, Part, TableError, parts

_BIO = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Contents:
    """`rows` that lack nothing, and how many have each label: none where rows have no labels. Of tagged words the tags."""

    rows: int
    labels: Mapping[str, int]


def are_numbers(texts: Iterable[str]) -> bool:
    """Whether each of them is a finite number."""
    return all(map(_is_number, texts))


def columns_of(data: Splits) -> dict[str, str]:
    """The columns that rows of this kind are read from, by the keys that name them."""
    match data:
        case LabelledText():
            keys = ["text", *(["text_pair"] if data.text_pair else []), "label"]
        case TaggedWords():
            keys = ["tokens", "tags"]
        case TextOrPairs():
            keys = ["text"] if data.text else ["prompt", "answer"]
        case SourceAndTarget():
            keys = ["source", "target"]
        case LabelledImages():
            keys = ["image", "label"]
        case _:
            raise TypeError(type(data))
    return {key: getattr(data, key) for key in keys}


def read_contents(path: Path, data: Splits, problem: str | None) -> Contents:
    """What a file holds, read once per process while it stays as it is. `problem` is that of a text classification.

    Raises TableError for rows that cannot be used, which names the first of them; OSError.
    """
    stat = path.stat()
    read = columns_of(data)
    if isinstance(data, LabelledText) and problem == "multi-label":
        read["label_separator"] = data.label_separator
    # Nothing else of `data` matters to a single file: studies that search it would have the file read for each of its values.
    return _read(path, stat.st_size, stat.st_mtime_ns, type(data).model_validate({"train": "-", **read}), problem)


@lru_cache(maxsize=256)
def _read(path: Path, _size: int, _mtime_ns: int, data: Splits, problem: str | None) -> Contents:
    columns = columns_of(data)
    match data:
        case LabelledText() if problem == "multi-label":
            return _several_labels(path, [columns[key] for key in columns if key != "label"], data)
        case LabelledText():
            return _single_labels(path, list(columns.values()), numbers=problem == "regression")
        case TaggedWords():
            return _tags(path, data)
        case LabelledImages():
            return _pictures(path, data)
        case _:
            return Contents(sum(1 for _ in _whole(parts(path, list(columns.values())), list(columns.values()))), {})


def _whole(found: Iterator[Part], columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows that have a text in each of the columns, without the space around it, with their numbers from 1."""
    start = 1
    for part in found:
        values = [part.texts[column] for column in columns]
        for number, row in enumerate(zip(*values, strict=True), start=start):
            texts = [(value or "").strip() for value in row]
            if all(texts):
                yield number, texts
        start += part.rows


def _single_labels(path: Path, columns: Sequence[str], *, numbers: bool) -> Contents:
    labels: Counter[str] = Counter()
    for number, texts in _whole(parts(path, columns), columns):
        if numbers and not _is_number(texts[-1]):
            detail = f"row {number} has {texts[-1]!r} as {columns[-1]!r}, which is no finite number: regression learns numbers"
            raise TableError(detail, columns[-1])
        labels[texts[-1]] += 1
    return Contents(labels.total(), {} if numbers else labels)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _several_labels(path: Path, texts: Sequence[str], data: LabelledText) -> Contents:
    rows, labels = 0, Counter[str]()
    for part in parts(path, texts, {data.label: data.label_separator}):
        columns = [part.texts[column] for column in texts]
        for *values, found in zip(*columns, part.lists[data.label], strict=True):
            if all(isinstance(value, str) and value.strip() for value in values):
                rows += 1
                labels.update({label.strip() for label in found or [] if label.strip()})
    return Contents(rows, labels)


def _tags(path: Path, data: TaggedWords) -> Contents:
    rows, tags = 0, Counter[str]()
    wanted = parts(path, lists={data.tokens: None, data.tags: None})
    sentences = (pair for part in wanted for pair in zip(part.lists[data.tokens], part.lists[data.tags], strict=True))
    for number, (words, found) in enumerate(sentences, start=1):
        _check_sentence(number, words or [], found or [], data)
        rows += bool(words)
        tags.update(found or [])
    return Contents(rows, tags)


def _check_sentence(number: int, words: Sequence[str], tags: Sequence[str], data: TaggedWords) -> None:
    what = "sentence" if (data.tokens, data.tags) == CONLL_COLUMNS else "row"
    if len(words) != len(tags):
        raise TableError(f"{what} {number} has {len(words)} words and {len(tags)} tags: write a tag for each word")
    wrong = next((tag for tag in tags if not _BIO.fullmatch(tag)), None)
    if wrong is not None:
        how = "write O for a word outside, B-NAME for the first word of a NAME and I-NAME for its others"
        raise TableError(f"{what} {number} has the tag {wrong!r}, which is no BIO tag: {how}", data.tags)


def _pictures(path: Path, data: LabelledImages) -> Contents:
    """Of a table the first picture is decoded: whether the column holds any is what an upload could not know."""
    pictures = read_images(path, data.image, data.label)
    if path.suffix.lower() != ".zip":
        next(iter(pictures), None)
    labels = Counter(pictures.labels)
    labels.pop("", None)
    return Contents(labels.total(), labels)
