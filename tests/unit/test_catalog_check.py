"""What the catalog refuses of a study, and where it points to."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search_spaces import FloatParameter
from service.catalog.catalog import LocalCatalog, open_catalog, open_datasets
from service.catalog.checks import check_rows
from service.catalog.contents import _read
from service.catalog.datasets import LocalDatasetStore
from service.catalog.hub import HubCache
from service.catalog.hub_datasets import HubDatasets
from service.catalog.models import Models
from service.catalog.sources import Sources
from service.catalog.variants import rows_of
from service.domain.errors import DatasetNotFound, InvalidDefinition, ModelNotFound
from service.settings import Settings
from tests.builders import NOW, a_definition, a_document
from tests.unit.catalog_shelf import write_model
from tests.unit.test_hub_datasets import FakeDatasetHub

Found = list[tuple[str, str]]


class Shelf:
    """A catalog with models `tiny` (2 layers, 64 tokens) and `large` (12 layers, 512 tokens), and the files put into it."""

    def __init__(self, root: Path) -> None:
        write_model(root / "models" / "tiny", num_hidden_layers=2, max_position_embeddings=64)
        write_model(root / "models" / "large", num_hidden_layers=12)
        self.datasets = LocalDatasetStore(root / "datasets", max_bytes=1_000_000)
        models = Models([root / "models"], HubCache(own=root / "own", ordinary=root / "ordinary"), hub=None, installed={})
        self.hub = FakeDatasetHub({"mine/rows": {"train.csv": b"text,label\na,x\nb,y\n"}})
        self.sources = Sources(self.datasets, root / "builtin", HubDatasets(root / "rows", self.hub))
        self.catalog = LocalCatalog(models, self.sources)
        self.builtin = root / "builtin"

    def put(self, uri: str, labels: Sequence[str], header: str = "text,label") -> None:
        content = "\n".join([header, *(f"text {number},{label}" for number, label in enumerate(labels))])
        self.store(uri, content.encode())

    def store(self, uri: str, content: bytes) -> None:
        dataset, _, file = uri.removeprefix("dataset://").partition("/")
        self.datasets.put(dataset, file, io.BytesIO(content), NOW)

    def lines(self, uri: str, *rows: Mapping[str, Any]) -> None:
        self.store(uri, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def finds(self, kind: str, /, metric: str = "validation/loss", space: dict[str, Any] | None = None, **trainer: Any) -> Found:
        """The same as `refuses`, for the rows of a study of any kind."""
        document = a_document(
            trainer={"kind": kind, "model": "tiny", "epochs": 3, **trainer},
            objective={"metric": metric, "direction": "minimize"},
        )
        document["space"] |= space or {}
        violations = check_rows(a_definition(**document), self.sources)
        return [(violation.pointer, violation.detail) for violation in violations]

    def refuses(self, space: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **trainer: Any) -> Found:
        """Pointer and detail of every violation of a study."""
        try:
            self.catalog.check(a_definition(**study(space, data, **trainer)))
        except InvalidDefinition as error:
            return [(violation.pointer, violation.detail) for violation in error.violations]
        return []


def study(space: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
    written = {"model": "tiny", "max_length": 32, "data": {"train": "dataset://intents/train.csv", **(data or {})}, **trainer}
    document = a_document()
    return {
        "trainer": {**document["trainer"], **{key: value for key, value in written.items() if value is not None}},
        "space": {**document["space"], **(space or {})},
    }


def choices(*values: Any) -> dict[str, Any]:
    return {"kind": "categorical", "choices": list(values)}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.put("dataset://intents/train.csv", ["a", "b"] * 10)
    return shelf


def test_a_study_with_a_model_and_rows_is_good(shelf: Shelf) -> None:
    assert shelf.refuses() == []


def test_a_model_that_is_nowhere_is_pointed_to(shelf: Shelf) -> None:
    [(pointer, detail)] = shelf.refuses(model="huge")
    assert pointer == "/trainer/model"
    assert "'huge' is not on this machine" in detail


def test_a_model_among_choices_is_pointed_to_by_its_place(shelf: Shelf) -> None:
    [(pointer, _)] = shelf.refuses(space={"model": choices("tiny", "huge", "large")}, model=None)
    assert pointer == "/space/model/choices/1"


def test_a_model_that_every_trial_replaces_is_not_looked_for(shelf: Shelf) -> None:
    assert shelf.refuses(space={"model": choices("tiny")}, model="huge") == []


def test_freezing_every_layer_is_good_and_one_more_is_not(shelf: Shelf) -> None:
    assert shelf.refuses(frozen_layers=2) == []
    [(pointer, detail)] = shelf.refuses(frozen_layers=3)
    assert pointer == "/trainer/frozen_layers"
    assert "'tiny' has 2 layers" in detail


def test_a_range_of_frozen_layers_is_compared_with_the_smallest_model(shelf: Shelf) -> None:
    space = {"model": choices("large", "tiny"), "frozen_layers": {"kind": "int", "low": 0, "high": 6}}
    assert [pointer for pointer, _ in shelf.refuses(space=space)] == ["/space/frozen_layers/high"]


def test_the_end_of_a_range_that_its_step_does_not_reach_is_good(shelf: Shelf) -> None:
    assert shelf.refuses(space={"frozen_layers": {"kind": "int", "low": 0, "high": 3, "step": 2}}) == []


def test_every_choice_of_frozen_layers_that_is_too_much_is_pointed_to(shelf: Shelf) -> None:
    found = shelf.refuses(space={"frozen_layers": choices(0, 3, 2, 9)})
    assert [pointer for pointer, _ in found] == ["/space/frozen_layers/choices/1", "/space/frozen_layers/choices/3"]


def test_longer_texts_than_the_model_has_positions_for_are_refused(shelf: Shelf) -> None:
    assert shelf.refuses(max_length=64) == []
    assert [pointer for pointer, _ in shelf.refuses(max_length=65)] == ["/trainer/max_length"]
    assert [pointer for pointer, _ in shelf.refuses(space={"max_length": choices(32, 128)})] == ["/space/max_length/choices/1"]


def test_a_default_that_is_too_much_is_pointed_to_where_it_would_be_written(shelf: Shelf) -> None:
    assert [pointer for pointer, _ in shelf.refuses(max_length=None)] == ["/trainer/max_length"]


def test_everything_that_is_wrong_is_said_at_once(shelf: Shelf) -> None:
    found = shelf.refuses(
        model="huge", data={"train": "dataset://other/a.csv", "test": "ftp://x", "validation": "builtin://nope/train"}
    )
    assert [pointer for pointer, _ in found] == [
        "/trainer/model", "/trainer/data/train", "/trainer/data/validation", "/trainer/data/test",
    ]  # fmt: skip


def test_a_file_that_is_missing_says_how_to_upload_it(shelf: Shelf) -> None:
    [(pointer, detail)] = shelf.refuses(data={"test": "dataset://mine/held_out.parquet"})
    assert pointer == "/trainer/data/test"
    assert "`tuneyard dataset put mine held_out.parquet`" in detail
    assert "did you mean" not in detail


def test_a_file_that_is_nearly_there_is_named(shelf: Shelf) -> None:
    [(_, detail)] = shelf.refuses(data={"train": "dataset://intent/train.csv"})
    assert "did you mean dataset://intents/train.csv?" in detail


@pytest.mark.parametrize("uri", ["train.csv", "s3://bucket/train.csv", "file:///etc/passwd", "dataset:/intents/train.csv"])
def test_a_scheme_that_is_not_ours_is_refused(shelf: Shelf, uri: str) -> None:
    [(pointer, detail)] = shelf.refuses(data={"train": uri})
    assert pointer == "/trainer/data/train"
    assert "use dataset://NAME/FILE, hub://OWNER/NAME/SPLIT or builtin://NAME" in detail


@pytest.mark.parametrize("uri", ["dataset://", "dataset://intents", "dataset://intents/../train.csv", "dataset://../x/a.csv"])
def test_a_name_that_no_file_can_have_is_refused(shelf: Shelf, uri: str) -> None:
    assert [pointer for pointer, _ in shelf.refuses(data={"train": uri})] == ["/trainer/data/train"]


def test_a_built_in_data_set_that_is_not_there_is_complained_of_once(shelf: Shelf) -> None:
    [(pointer, detail)] = shelf.refuses(data={"train": "builtin://api-doc"})
    assert pointer == "/trainer/data/train"
    assert "builtin://api-docs" in detail


@pytest.mark.parametrize("name", ["api-docs", "digits"])
def test_a_built_in_data_set_is_checked_without_being_made(shelf: Shelf, name: str) -> None:
    assert shelf.refuses(data={"train": f"builtin://{name}"}) == []
    assert not shelf.builtin.exists()


@pytest.mark.parametrize("key", ["text", "label"])
def test_a_column_that_is_missing_lists_those_there_are(shelf: Shelf, key: str) -> None:
    [(pointer, detail)] = shelf.refuses(data={key: "category"})
    assert pointer == f"/trainer/data/{key}"
    assert detail == "dataset://intents/train.csv has no column `category`: it has `text`, `label`"


def test_a_default_column_that_is_missing_is_pointed_to_where_it_would_be_written(shelf: Shelf) -> None:
    shelf.put("dataset://intents/test.csv", ["a", "b"], header="text,category")
    [(pointer, _)] = shelf.refuses(data={"test": "dataset://intents/test.csv"})
    assert pointer == "/trainer/data/label"


def test_training_rows_of_one_label_are_refused(shelf: Shelf) -> None:
    shelf.put("dataset://intents/train.csv", ["a", " a ", ""] * 5)
    [(pointer, detail)] = shelf.refuses()
    assert pointer == "/trainer/data/label"
    assert "only the label 'a'" in detail


def test_training_rows_without_any_label_are_refused(shelf: Shelf) -> None:
    shelf.put("dataset://intents/train.csv", ["", " "])
    [(_, detail)] = shelf.refuses()
    assert "no label" in detail


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_that_never_occur_in_training_are_named_three_at_most(shelf: Shelf, split: str) -> None:
    shelf.put("dataset://intents/other.csv", ["a", "z", "y", "x", "w", "w"])
    [(pointer, detail)] = shelf.refuses(data={split: "dataset://intents/other.csv"})
    assert pointer == f"/trainer/data/{split}"
    assert "'w', 'x', 'y' and 1 more" in detail


def test_labels_are_compared_without_the_space_around_them(shelf: Shelf) -> None:
    shelf.put("dataset://intents/other.csv", ["a ", " b"])
    assert shelf.refuses(data={"validation": "dataset://intents/other.csv"}) == []


def test_too_few_rows_to_hold_any_back_are_refused(shelf: Shelf) -> None:
    shelf.put("dataset://intents/train.csv", ["a", "b", "c"])
    [(pointer, detail)] = shelf.refuses(data={"validation_fraction": 0.5})
    assert pointer == "/trainer/data/validation_fraction"
    assert "none of 3 rows" in detail


def test_few_rows_are_enough_beside_validation_rows(shelf: Shelf) -> None:
    shelf.put("dataset://intents/train.csv", ["a", "b"])
    assert shelf.refuses(data={"validation": "dataset://intents/train.csv"}) == []


def test_rows_in_the_space_are_pointed_to_by_their_place(shelf: Shelf) -> None:
    space = {"data.train": choices("dataset://intents/train.csv", "dataset://intents/gone.csv")}
    assert [pointer for pointer, _ in shelf.refuses(space=space)] == ["/space/data.train/choices/1"]


def test_columns_in_the_space_are_checked_for_every_file(shelf: Shelf) -> None:
    space = {"data.label": choices("label", "topic")}
    assert [pointer for pointer, _ in shelf.refuses(space=space)] == ["/space/data.label/choices/1"]


def test_a_violation_that_several_choices_share_is_told_once(shelf: Shelf) -> None:
    space = {"data.split_seed": choices(1, 2, 3)}
    assert len(shelf.refuses(space=space, data={"test": "dataset://intents/gone.csv"})) == 1


def test_a_fraction_that_varies_is_checked_at_its_ends(shelf: Shelf) -> None:
    space = {"data.validation_fraction": {"kind": "float", "low": 0.001, "high": 0.5}}
    assert [pointer for pointer, _ in shelf.refuses(space=space)] == ["/space/data.validation_fraction/low"]


def test_rows_that_vary_in_too_many_ways_are_refused(shelf: Shelf) -> None:
    space = {f"data.{key}": choices(*(f"{key}{number}" for number in range(11))) for key in ("train", "text", "label")}
    [(pointer, detail)] = shelf.refuses(space=space)
    assert pointer == "/space"
    assert "1331 ways" in detail


def test_a_replaced_file_is_read_again(shelf: Shelf) -> None:
    assert shelf.refuses() == []
    shelf.put("dataset://intents/train.csv", ["a"] * 20)
    assert [pointer for pointer, _ in shelf.refuses()] == ["/trainer/data/label"]


def test_a_file_is_read_once_whatever_else_of_its_rows_varies(shelf: Shelf) -> None:
    before = _read.cache_info().misses
    space = {
        "data.normalise": choices("nfc", "nfkc", "none"),
        "data.lowercase": choices(True, False),
        "data.label_separator": choices("|", ";"),
        "data.split_seed": choices(1, 2),
    }
    assert shelf.refuses(space=space) == []
    assert _read.cache_info().misses == before + 1


def test_a_file_is_read_for_each_of_the_columns_and_separators_that_matter(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": "x;y"} for at in range(20)))
    shelf.lines(OTHER, {"text": "a", "label": "y"})
    space = {"data.label_separator": choices("|", ";")}
    [(pointer, detail)] = shelf.finds("text-classification", space=space, data={"train": TRAIN, "test": OTHER}, **MULTI)
    assert pointer == "/trainer/data/test"
    assert "'y'" in detail


def test_a_label_column_of_lists_is_refused(shelf: Shelf) -> None:
    shelf.datasets.put("intents", "train.jsonl", io.BytesIO(b'{"text": "a", "label": ["x"]}\n'), NOW)
    [(pointer, detail)] = shelf.refuses(data={"train": "dataset://intents/train.jsonl"})
    assert pointer == "/trainer/data/label"
    assert "line 1" in detail


def test_a_label_that_cannot_be_sent_to_anybody_is_refused(shelf: Shelf) -> None:
    shelf.datasets.put("intents", "train.jsonl", io.BytesIO(b'{"text": "a", "label": "\\ud800"}\n'), NOW)
    assert [pointer for pointer, _ in shelf.refuses(data={"train": "dataset://intents/train.jsonl"})] == ["/trainer/data/label"]


def test_fetching_maps_every_name_that_a_trial_can_use(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("dataset://intents/more.csv", ["a", "b"] * 10)
    space = {
        "model": choices("tiny", "large"),
        "data.train": choices("dataset://intents/train.csv", "dataset://intents/more.csv"),
    }
    fetched = shelf.catalog.fetch(a_definition(**study(space, {"test": "builtin://digits/test"}, model=None)))
    assert fetched.models == {name: tmp_path / "models" / name for name in ("tiny", "large")}
    assert set(fetched.sources) == {"dataset://intents/train.csv", "dataset://intents/more.csv", "builtin://digits/test"}
    assert all(path.is_file() for path in fetched.sources.values())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "huge"}, ModelNotFound),
        ({"data": {"train": "dataset://intents/gone.csv"}}, DatasetNotFound),
        ({"data": {"train": "builtin://nope"}}, DatasetNotFound),
    ],
)
def test_fetching_what_is_not_there_says_so(shelf: Shelf, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        shelf.catalog.fetch(a_definition(**study(**changes)))


def test_a_file_that_lost_its_content_cannot_be_read(shelf: Shelf) -> None:
    shelf.datasets.path("intents", "train.csv").unlink()
    assert [pointer for pointer, _ in shelf.refuses()] == ["/trainer/data/train"]


def test_a_service_opens_its_catalog_and_its_data_sets_under_its_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", model_roots=(tmp_path / "models",), offline=True, max_upload_bytes=1000)
    write_model(tmp_path / "models" / "tiny")
    open_datasets(settings).put("intents", "train.csv", io.BytesIO(b"text,label\na,b\nc,d\n"), NOW)
    data = {"validation": "dataset://intents/train.csv"}
    assert open_catalog(settings).fetch(a_definition(**study(data=data))).models == {"tiny": tmp_path / "models" / "tiny"}
    open_catalog(settings).check(a_definition(**study(data=data)))


TRAIN, OTHER = "dataset://mine/train.jsonl", "dataset://mine/other.jsonl"


def test_a_text_column_that_holds_no_text_is_refused(shelf: Shelf) -> None:
    shelf.lines(TRAIN, {"text": ["a"], "label": "x"})
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN})
    assert pointer == "/trainer/data/text"
    assert detail == f"{TRAIN}: line 1 holds a list or an object as 'text', not a text or number"


def test_the_second_text_of_a_pair_is_a_column_too(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": "xy"[at % 2]} for at in range(40)))
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN, "text_pair": "answer"})
    assert pointer == "/trainer/data/text_pair"
    assert "has no column `answer`: it has `text`, `label`" in detail


def test_rows_without_a_text_do_not_count(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": "" if at % 2 else f"t{at}", "label": "xy"[at % 2]} for at in range(40)))
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN})
    assert pointer == "/trainer/data/label"
    assert "only the label 'x'" in detail


def test_validation_rows_that_are_all_empty_are_refused(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": "xy"[at % 2]} for at in range(40)))
    shelf.lines(OTHER, {"text": "a", "label": " "})
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN, "validation": OTHER})
    assert pointer == "/trainer/data/validation"
    assert "no row with something in each of `text`, `label`" in detail


MULTI: dict[str, Any] = {"problem": "multi-label"}


@pytest.mark.parametrize("labels", [["x", "y"], "x|y", " x | y |"])
def test_several_labels_are_a_list_or_text_with_a_separator(shelf: Shelf, labels: Any) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": labels} for at in range(20)))
    shelf.lines(OTHER, {"text": "a", "label": ["x"]}, {"text": "b", "label": []})
    assert shelf.finds("text-classification", data={"train": TRAIN, "validation": OTHER}, **MULTI) == []


def test_one_of_several_labels_that_training_lacks_is_named(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": "x|y"} for at in range(20)))
    shelf.lines(OTHER, {"text": "a", "label": "x|z"})
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN, "test": OTHER}, **MULTI)
    assert pointer == "/trainer/data/test"
    assert "has labels that no training row has: 'z'." in detail


def test_rows_without_any_of_several_labels_leave_nothing_to_learn(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": []} for at in range(20)))
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN}, **MULTI)
    assert pointer == "/trainer/data/label"
    assert "no label in `label`: a classification needs one" in detail


def test_rows_of_several_labels_are_held_back_without_looking_at_them(shelf: Shelf) -> None:
    """Here there are as many labels as rows, but not one for each."""
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": f"rare {at}|odd {at}" if at < 10 else []} for at in range(20)))
    assert shelf.finds("text-classification", data={"train": TRAIN}, **MULTI) == []


REGRESSION: dict[str, Any] = {"problem": "regression"}


def test_numbers_of_every_spelling_can_be_learnt(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": value} for at, value in enumerate([1, 2.5, "-3", "1e-3", None] * 5)))
    assert shelf.finds("text-classification", data={"train": TRAIN}, **REGRESSION) == []


@pytest.mark.parametrize("value", ["a lot", "nan", "inf", True])
def test_a_value_that_is_no_number_is_named_by_its_row(shelf: Shelf, value: Any) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": value if at == 2 else at} for at in range(20)))
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN}, **REGRESSION)
    assert pointer == "/trainer/data/label"
    assert detail.startswith(f"{TRAIN}: row 3 has ")


def test_a_single_row_of_numbers_cannot_be_held_back(shelf: Shelf) -> None:
    shelf.lines(TRAIN, {"text": "a", "label": 1})
    [(pointer, detail)] = shelf.finds("text-classification", data={"train": TRAIN}, **REGRESSION)
    assert pointer == "/trainer/data/validation_fraction"
    assert "none of 1 rows, as one stays to train on" in detail


@pytest.mark.parametrize(("name", "pointers"), [("digits", []), ("api-docs", ["/trainer/data/label"])])
def test_labels_of_a_built_in_data_set_may_be_numbers(shelf: Shelf, name: str, pointers: list[str]) -> None:
    found = shelf.finds("text-classification", data={"train": f"builtin://{name}"}, **REGRESSION)
    assert sorted({pointer for pointer, _ in found}) == pointers


def test_a_test_fraction_that_holds_nothing_back_is_refused(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"text": f"t{at}", "label": "xy"[at % 2]} for at in range(40)))
    [(pointer, _)] = shelf.finds("text-classification", data={"train": TRAIN, "test_fraction": 0.001})
    assert pointer == "/trainer/data/test_fraction"


CONLL = "dataset://mine/train.conll"


def sentences(count: int, tag: str = "B-person") -> bytes:
    return b"".join(b"Emma\t%s\nis\tO\n%d\tO\n\n" % (tag.encode(), number) for number in range(count))


def test_tagged_sentences_of_a_conll_file_are_good(shelf: Shelf) -> None:
    shelf.store(CONLL, sentences(20))
    assert shelf.finds("token-classification", data={"train": CONLL}) == []


def test_a_row_with_more_words_than_tags_is_named(shelf: Shelf) -> None:
    shelf.lines(TRAIN, {"tokens": "a b", "tags": "O O"}, {"tokens": ["a", "b"], "tags": ["O"]})
    [(pointer, detail)] = shelf.finds("token-classification", data={"train": TRAIN})
    assert pointer == "/trainer/data/train"
    assert "2 has 2 words and 1 tags: write a tag for each word" in detail


@pytest.mark.parametrize("tag", ["NN", "B", "B-", "S-person", "o"])
def test_a_tag_that_is_no_bio_tag_is_named_with_its_sentence(shelf: Shelf, tag: str) -> None:
    shelf.store(CONLL, sentences(3) + sentences(1, tag))
    [(pointer, detail)] = shelf.finds("token-classification", data={"train": CONLL})
    assert pointer == "/trainer/data/tags"
    assert f"sentence 4 has the tag {tag!r}, which is no BIO tag" in detail


def test_a_tag_that_training_lacks_is_named(shelf: Shelf) -> None:
    shelf.store(CONLL, sentences(20))
    shelf.store("dataset://mine/test.conll", sentences(1, "B-group"))
    [(pointer, detail)] = shelf.finds("token-classification", data={"train": CONLL, "test": "dataset://mine/test.conll"})
    assert pointer == "/trainer/data/test"
    assert "has tags that no training row has: 'B-group'" in detail


def test_columns_of_words_that_are_missing_are_named(shelf: Shelf) -> None:
    shelf.lines(TRAIN, {"words": ["a"], "tags": ["O"]})
    [(pointer, _)] = shelf.finds("token-classification", data={"train": TRAIN})
    assert pointer == "/trainer/data/tokens"


def test_a_conll_file_has_no_texts(shelf: Shelf) -> None:
    shelf.store(CONLL, sentences(20))
    [(pointer, detail)] = shelf.finds("causal-lm", data={"train": CONLL, "text": "tokens"})
    assert pointer == "/trainer/data/text"
    assert "lists of words" in detail


def test_a_built_in_data_set_has_no_tagged_words(shelf: Shelf) -> None:
    data = {"train": "builtin://api-docs/train", "tokens": "text", "tags": "label"}
    assert [pointer for pointer, _ in shelf.finds("token-classification", data=data)] == ["/trainer/data/train"]


PAIRS = [{"question": f"q{at}", "answer": f"a{at}"} for at in range(20)]


def test_pairs_and_plain_texts_are_good(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *PAIRS)
    assert shelf.finds("causal-lm", data={"train": TRAIN, "prompt": "question"}) == []
    assert shelf.finds("causal-lm", data={"train": TRAIN, "text": "answer"}) == []
    assert shelf.finds("seq2seq", data={"train": TRAIN, "source": "question", "target": "answer"}) == []


@pytest.mark.parametrize(
    ("kind", "data", "keys"),
    [
        ("causal-lm", {}, ["prompt"]),
        ("causal-lm", {"prompt": "question", "answer": "reply"}, ["answer"]),
        ("causal-lm", {"text": "text"}, ["text"]),
        ("seq2seq", {}, ["source", "target"]),
    ],
)
def test_columns_of_texts_that_are_missing_are_named(shelf: Shelf, kind: str, data: dict[str, str], keys: list[str]) -> None:
    shelf.lines(TRAIN, *PAIRS)
    found = shelf.finds(kind, data={"train": TRAIN, **data})
    assert [pointer for pointer, _ in found] == [f"/trainer/data/{key}" for key in keys]


def test_pairs_of_which_one_half_is_always_missing_are_refused(shelf: Shelf) -> None:
    shelf.lines(TRAIN, {"question": "q", "answer": " "}, {"question": None, "answer": "a"})
    [(pointer, detail)] = shelf.finds("causal-lm", data={"train": TRAIN, "prompt": "question"})
    assert pointer == "/trainer/data/train"
    assert "in each of `question`, `answer`" in detail


def images(*labels: str) -> bytes:
    picture, written = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(picture, "PNG")
    with zipfile.ZipFile(written, "w") as archive:
        for number, label in enumerate(labels):
            archive.writestr(f"{label}/{number}.png", picture.getvalue())
    return written.getvalue()


ZIP = "dataset://mine/train.zip"


@pytest.mark.parametrize("columns", [{}, {"image": "picture", "label": "kind"}])
def test_a_zip_of_images_needs_no_columns(shelf: Shelf, columns: dict[str, str]) -> None:
    shelf.store(ZIP, images(*["cats", "dogs"] * 10))
    assert shelf.finds("image-classification", data={"train": ZIP, **columns}) == []


def test_images_of_one_label_are_refused(shelf: Shelf) -> None:
    shelf.store(ZIP, images(*["cats"] * 10))
    [(pointer, detail)] = shelf.finds("image-classification", data={"train": ZIP})
    assert pointer == "/trainer/data/label"
    assert "only the label 'cats'" in detail


def test_images_of_a_label_that_training_lacks_are_refused(shelf: Shelf) -> None:
    shelf.store(ZIP, images(*["cats", "dogs"] * 10))
    shelf.store("dataset://mine/test.zip", images("cats", "birds"))
    [(pointer, detail)] = shelf.finds("image-classification", data={"train": ZIP, "test": "dataset://mine/test.zip"})
    assert pointer == "/trainer/data/test"
    assert "'birds'" in detail


def test_grey_values_are_images_and_other_texts_are_not(shelf: Shelf) -> None:
    shelf.lines(TRAIN, *({"grey": [0, 1, 2, at], "text": "hello!", "label": "xy"[at % 2]} for at in range(40)))
    assert shelf.finds("image-classification", data={"train": TRAIN, "image": "grey"}) == []
    [(pointer, detail)] = shelf.finds("image-classification", data={"train": TRAIN, "image": "text"})
    assert pointer == "/trainer/data/image"
    assert "line 1 is text, but no picture" in detail


def test_the_built_in_digits_are_images_and_sentences_are_not(shelf: Shelf) -> None:
    assert shelf.finds("image-classification", data={"train": "builtin://digits", "image": "pixels"}) == []
    [(pointer, detail)] = shelf.finds("image-classification", data={"train": "builtin://api-docs/train", "image": "text"})
    assert pointer == "/trainer/data/image"
    assert "has no images in `text`" in detail


def test_rows_of_the_hub_are_looked_for_and_not_downloaded(shelf: Shelf) -> None:
    data = {"train": "hub://mine/rows/train", "validation": "hub://mine/rows/dev", "test": "hub://mine"}
    found = shelf.refuses(data=data)
    assert [pointer for pointer, _ in found] == ["/trainer/data/validation", "/trainer/data/test"]
    assert "has no rows of a split 'dev'" in found[0][1]
    assert "hub://OWNER/NAME/SPLIT" in found[1][1]
    assert shelf.hub.downloaded == []


def test_rows_of_the_hub_that_were_fetched_are_checked_like_others(shelf: Shelf) -> None:
    shelf.sources.fetch("hub://mine/rows/train")
    found = shelf.refuses(data={"train": "hub://mine/rows/train", "text": "body"})
    assert [pointer for pointer, _ in found] == ["/trainer/data/text"]
    assert [pointer for pointer, _ in shelf.refuses(data={"train": "hub://mine/rows/train"})] == [
        "/trainer/data/validation_fraction"
    ]


def test_rows_that_the_trainer_does_not_take_together_are_refused_with_a_sentence() -> None:
    far: dict[str, Any] = {"kind": "float", "low": 0.1, "high": 0.95, "log": False}
    definition = a_definition(space={"data.validation_fraction": {**far, "high": 0.2}})
    later = definition.model_copy(
        update={"space": {f"data.{name}_fraction": FloatParameter(**far) for name in ("validation", "test")}}
    )
    with pytest.raises(InvalidDefinition, match="the trainer does not take its rows where `data"):
        list(rows_of(later))
