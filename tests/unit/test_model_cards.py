"""Model cards, as people and machines write them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.catalog.cards import parse_card, read_card
from service.catalog.headers import read_header
from service.domain.base_models import Benchmark, ModelCard
from tests.unit.catalog_shelf import write_model

CARD = """---
license: apache-2.0
language: [en, no]
datasets:
- ms_marco
- snli
base_model: nreimers/MiniLM-L6-H384-uncased
tags: [sentence-similarity]
date: 2024-05-06
model-index:
- name: all-MiniLM-L6-v2
  results:
  - task: {type: Retrieval}
    dataset: {name: MTEB ArguAna, type: mteb/arguana}
    metrics:
    - {type: ndcg_at_10, value: 50.2}
    - {type: broken, value: .nan}
    - {type: text, value: high}
  - metrics: nothing
---
# all-MiniLM-L6-v2
It maps sentences to vectors.
"""


def test_a_card_says_where_a_model_comes_from_and_how_good_it_is() -> None:
    assert parse_card(CARD) == ModelCard(
        licence="apache-2.0",
        datasets=("ms_marco", "snli"),
        languages=("en", "no"),
        base_models=("nreimers/MiniLM-L6-H384-uncased",),
        tags=("sentence-similarity",),
        benchmarks=(Benchmark("Retrieval", "MTEB ArguAna", "ndcg_at_10", 50.2),),
        characters=len("# all-MiniLM-L6-v2\nIt maps sentences to vectors."),
        updated_at=datetime(2024, 5, 6, tzinfo=UTC),
    )


def test_a_licence_of_its_own_is_called_by_its_name() -> None:
    assert parse_card("---\nlicense: other\nlicense_name: llama3\n---\n").licence == "llama3"
    assert parse_card("---\nlicense: other\n---\n").licence == "other"


@pytest.mark.parametrize(
    "front",
    [
        "a: [", "- a\n- b", "text", "42", "", "license: 7", "license: {a: b}", "datasets: {a: [b]}", "model-index: [1, [2]]",
        "license: &a mit\ntags: *a", "a: " + "[" * 500, "date: 2024-99-99", "? [a]\n: b", "license: !!python/object:os.system x",
        "model-index: [{results: [{metrics: [{value: " + "9" * 400 + "}]}]}]", "license: " + "x" * 300_000,
    ],
)  # fmt: skip
def test_a_card_that_makes_no_sense_says_nothing_and_does_no_harm(front: str) -> None:
    card = parse_card(f"---\n{front}\n---\nAbout it.")
    assert (card.licence, card.datasets, card.tags, card.benchmarks) == (None, (), (), ())
    assert card.characters == len("About it.")


def test_a_card_without_anything_in_front_is_text() -> None:
    assert parse_card("# Title\n") == ModelCard(characters=7)
    assert parse_card("---\nlicense: mit\n") == ModelCard(characters=len("---\nlicense: mit"))


def test_a_folder_without_a_card_has_none(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    assert read_card(folder) is None
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    card = read_card(folder)
    assert card is not None
    assert card.licence == "mit"


@pytest.mark.parametrize("results", [10_000, 100_000])
def test_a_licence_before_very_many_results_is_read(results: int) -> None:
    index = "model-index:\n- results:\n" + "  - {value: 1.5}\n" * results
    assert parse_card(f"---\nlicense: mit\n{index}---\ntext").licence == "mit"


def test_a_licence_behind_very_many_results_is_read() -> None:
    index = "model-index:\n- results:\n" + "  - {license: bad}\n" * 12_000
    assert parse_card(f"---\n{index}license: mit\n---\ntext").licence == "mit"


def test_a_card_and_a_header_are_read_once_while_their_files_stay_as_they_are(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_card(folder) is read_card(folder)
    assert read_header("tiny", folder) is read_header("tiny", folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 3}')
    card = read_card(folder)
    assert card is not None
    assert (card.licence, read_header("tiny", folder).layers) == ("apache-2.0", 3)
