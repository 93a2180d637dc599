"""What the catalog refuses of a study, and where it points to."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.catalog.catalog import LocalCatalog, open_catalog, open_datasets
from service.catalog.datasets import LocalDatasetStore
from service.catalog.hub import HubCache
from service.catalog.models import Models
from service.catalog.sources import Sources
from service.domain.errors import DatasetNotFound, InvalidDefinition, ModelNotFound
from service.settings import Settings
from tests.builders import NOW, a_definition, a_document
from tests.unit.catalog_shelf import write_model

Found = list[tuple[str, str]]


class Shelf:
    """A catalog with models `tiny` (2 layers, 64 tokens) and `large` (12 layers, 512 tokens), and the files put into it."""

    def __init__(self, root: Path) -> None:
        write_model(root / "models" / "tiny", num_hidden_layers=2, max_position_embeddings=64)
        write_model(root / "models" / "large", num_hidden_layers=12)
        self.datasets = LocalDatasetStore(root / "datasets", max_bytes=1_000_000)
        models = Models([root / "models"], HubCache(own=root / "own", ordinary=root / "ordinary"), hub=None, installed={})
        self.catalog = LocalCatalog(models, Sources(self.datasets, root / "builtin"))
        self.builtin = root / "builtin"

    def put(self, uri: str, labels: Sequence[str], header: str = "text,label") -> None:
        content = "\n".join([header, *(f"text {number},{label}" for number, label in enumerate(labels))])
        dataset, _, file = uri.removeprefix("dataset://").partition("/")
        self.datasets.put(dataset, file, io.BytesIO(content.encode()), NOW)

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
    assert "use dataset://NAME/FILE or builtin://NAME" in detail


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
