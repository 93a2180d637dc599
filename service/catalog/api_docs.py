"""The data set `api-docs`: which library does a docstring's first sentence come from? Made from the installed libraries' sources.

The same versions of the libraries always give the same rows: what is kept, and in which split and place, depends on hashes of
the texts, never on the order of files on a disk. No two rows are nearly the same, in one split or in two.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

from service.catalog.docstrings import sentences
from service.catalog.splitting import split_each

LIBRARIES: Mapping[str, str] = {
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "SQLAlchemy": "sqlalchemy",
    "sympy": "sympy",
    "torch": "torch",
}
"""The labels, which are also the names of the distributions, and the packages to read. All are always installed with us."""

ROWS_PER_LABEL = 260
"""At most so many; a library with less to say has fewer. A study on two cores goes through them in a quarter of a minute."""

_READ_PER_LABEL = 1000
"""More take longer to read, and give no better choice."""
_FEWEST_WORDS = 8
"""Shorter sentences say too little for anybody to tell where they are from."""
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.25
"""Of each label. Testing costs little, and with few rows chance would have a large part in the result."""

_NEARLY_THE_SAME = 0.8
"""Words in common as a share of the words in either."""

MASK = "[LIB]"
_NAMES = (
    "scikit[- ]?learn", "sklearn", "scipy", "numpy", "pandas", "pytorch", "torch", "sqlalchemy", "matplotlib", "mplot3d", "sympy",
    "networkx", "mlflow", "pyarrow", "transformers", "tensorflow", "hugging ?face", "optuna", "pydantic",
)  # fmt: skip
_ALIASES = (
    "np",
    "pd",
    "plt",
    "mpl",
    "nx",
    "sp",
    "sa",
    "sk",
    "sm",
    "tf",
    "pa",
    "pl",
    "scikit",
    "scikits",
    "arrow",
    "ray",
    "ray tune",
)
MASKED = re.compile(rf"(?:{'|'.join(_NAMES)})|(?<![a-z0-9])(?:{'|'.join(reversed(_ALIASES))})(?![a-z0-9])", re.IGNORECASE)
"""A library's name anywhere, also inside a longer word; a short alias as a word, also between dots and underscores."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

Words = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A sentence and the library that it is from."""

    text: str
    label: str


def make_rows(libraries: Mapping[str, str] = LIBRARIES) -> dict[str, list[Row]]:
    """The rows of each split. Takes seconds. Raises ModuleNotFoundError."""
    found: list[Row] = []
    for label, module in libraries.items():
        telling = (text for text in sentences(module) if len(text.split()) >= _FEWEST_WORDS)
        found += [Row(mask(text), label) for text in islice(telling, _READ_PER_LABEL)]
    return split(choose(found, ROWS_PER_LABEL))


def mask(text: str) -> str:
    """The text without the libraries' names."""
    return MASKED.sub(MASK, text)


def choose(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows of each label, none nearly the same as another; a text that several libraries have is left out."""
    owners: defaultdict[Words, set[str]] = defaultdict(set)
    for row in rows:
        owners[key(row.text)].add(row.label)
    own = {row for row in rows if len(owners[key(row.text)]) == 1}
    distinct = _Distinct(owners)
    counts: defaultdict[str, int] = defaultdict(int)
    kept = []
    for row in sorted(own, key=lambda row: _hash(row, "choice")):
        if counts[row.label] < most and distinct.add(key(row.text)):
            counts[row.label] += 1
            kept.append(row)
    return kept


def split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Training, validation and test rows, each label in the same proportion."""
    by_label: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    splits = split_each(by_label.values(), validation_share=VALIDATION_SHARE, test_share=TEST_SHARE)
    return {name: sorted(members, key=lambda row: _hash(row, "place")) for name, members in splits.items()}


def key(text: str) -> Words:
    """The words of a text in lower case: no digits, no punctuation, identifiers taken apart."""
    return tuple(word.lower() for word in _WORD.findall(text.replace(MASK, " ")))


def similarity(one: Words, other: Words) -> float:
    """Jaccard's index of the words, 0 to 1."""
    left, right = set(one), set(other)
    return len(left & right) / len(left | right) if left | right else 1.0


def _hash(row: Row, purpose: str) -> str:
    return sha256(f"{purpose}\0{row.label}\0{row.text}".encode()).hexdigest()


class _Distinct:
    """Texts that are not nearly the same. Exact: two sets of words that similar share one of the few rarest words of each."""

    def __init__(self, corpus: Mapping[Words, object]) -> None:
        self._frequency: defaultdict[str, int] = defaultdict(int)
        for words in corpus:
            for word in set(words):
                self._frequency[word] += 1
        self._by_word: defaultdict[str, list[Words]] = defaultdict(list)

    def add(self, words: Words) -> bool:
        """Whether `words` is not nearly the same as any earlier one, which it then is one of."""
        rarest = list(self._rarest(words))
        if not rarest or any(similarity(words, other) >= _NEARLY_THE_SAME for word in rarest for other in self._by_word[word]):
            return False
        for word in rarest:
            self._by_word[word].append(words)
        return True

    def _rarest(self, words: Words) -> Iterator[str]:
        ordered = sorted(set(words), key=lambda word: (self._frequency[word], word))
        shared = -(-len(ordered) * 4 // 5)  # at least this many of them are in any set that is 0.8 the same
        return islice(ordered, len(ordered) - shared + 1)
