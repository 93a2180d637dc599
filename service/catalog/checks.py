"""What is wrong with a study's rows, each with a JSON pointer into the user's document."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from service.catalog.builtin import SCHEME
from service.catalog.contents import Contents, columns_of
from service.catalog.sources import Sources
from service.catalog.variants import Rows, rows_of, values_of
from service.domain.definition import StudyDefinition
from service.domain.errors import DatasetNotFound, UnreadableDataset, Violation
from trainers.configs import BUILTIN_SPLITS, LabelledImages

_SHOWN = 3


def check_rows(definition: StudyDefinition, sources: Sources) -> Iterator[Violation]:
    """Rows that are not there, that lack a column, or that a model cannot be trained and validated on."""
    seen = set()
    problems: list[str | None] = [str(one.value) for one in values_of(definition, "problem")]
    for rows, problem in product(rows_of(definition), problems or [None]):
        for violation in _check(rows, problem, sources):
            if violation not in seen:
                seen.add(violation)
                yield violation


def _check(rows: Rows, problem: str | None, sources: Sources) -> Iterator[Violation]:
    columns = columns_of(rows.data)
    found: dict[str, Contents] = {}
    for split, uri in _named(rows).items():
        try:
            missing = list(_missing(rows, uri, sources.columns(uri)))
            yield from missing
            contents = None if missing else sources.contents(uri, rows.data, problem)
        except (DatasetNotFound, UnreadableDataset) as error:
            column = error.column if isinstance(error, UnreadableDataset) else None
            blamed = next((key for key, name in columns.items() if name == column), split)
            yield Violation(rows.pointers[blamed], error.detail)
            continue
        if contents is not None:
            found[split] = contents
    yield from _check_labels(rows, problem, found)
    yield from _check_held_back(rows, problem, found)


def _named(rows: Rows) -> dict[str, str]:
    """The splits that are named, without those that only follow from a wrong `builtin://NAME`, which is complained of once."""
    train = rows.data.train
    whole = train.rpartition("/")[0] if train.startswith(SCHEME) else None
    return {split: uri for split, uri in rows.data.named.items() if split == BUILTIN_SPLITS[0] or uri != f"{whole}/{split}"}


def _missing(rows: Rows, uri: str, columns: Sequence[str] | None) -> Iterator[Violation]:
    """Columns that are not there, where it is known which are; a zip of images needs none."""
    if columns is None or (isinstance(rows.data, LabelledImages) and uri.lower().endswith(".zip")):
        return
    for key, column in columns_of(rows.data).items():
        if column not in columns:
            listed = ", ".join(f"`{one}`" for one in columns)
            yield Violation(rows.pointers[key], f"{uri} has no column `{column}`: it has {listed}")


def _check_labels(rows: Rows, problem: str | None, found: Mapping[str, Contents]) -> Iterator[Violation]:
    """Every split has rows, and no label but those of the training rows."""
    labelled = {"label": "label", "tags": "tag"}
    key = None if problem == "regression" else next((key for key in columns_of(rows.data) if key in labelled), None)
    for split, contents in found.items():
        if not contents.rows and (key is None or split != "train"):
            listed = ", ".join(f"`{column}`" for column in columns_of(rows.data).values())
            yield Violation(
                rows.pointers[split], f"has no row with something in each of {listed}: add some, or name other columns"
            )
    if key is None or "train" not in found:
        return
    train = found["train"].labels
    fewest = 2 if key == "label" and problem != "multi-label" else 1
    if len(train) < fewest:
        only = f"only the label {next(iter(train))!r}" if train else f"no {labelled[key]}"
        needs = f"a classification needs {'two' if fewest > 1 else 'one'}, so name another column or file"
        yield Violation(rows.pointers[key], f"the training rows have {only} in `{columns_of(rows.data)[key]}`: {needs}")
        return
    for split, contents in found.items():
        yield from _check_known(rows.pointers[split], labelled[key], train, contents.labels)


def _check_known(at: str, what: str, train: Mapping[str, int], labels: Mapping[str, int]) -> Iterator[Violation]:
    unknown = sorted(set(labels) - set(train))
    if unknown:
        shown = ", ".join(repr(label) for label in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        detail = f"has {what}s that no training row has: {shown}{more}. Add such rows to `train`, or take them out here"
        yield Violation(at, detail)


def _check_held_back(rows: Rows, problem: str | None, found: Mapping[str, Contents]) -> Iterator[Violation]:
    """The training rows are enough to hold back what is not named. They keep every label, so that none is unknown there."""
    data, train = rows.data, found.get("train")
    if train is None or not train.rows:
        return
    # Rows of one label each are held back label by label, others all together.
    by_label = isinstance(data, LabelledImages) or problem == "single-label"
    counts = train.labels if by_label else {"": train.rows}
    for split, fraction in (("validation", data.validation_fraction), ("test", data.test_fraction)):
        if split not in data.named and fraction and not any(data.held_back(counts, fraction).values()):
            keeps = "each label keeps one" if by_label else "one stays"
            detail = (
                f"holds back none of {train.rows} rows, as {keeps} to train on: raise it, add rows, or name a file as `{split}`"
            )
            yield Violation(rows.pointers[f"{split}_fraction"], detail)
