"""Where predictions go wrong."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from trainers.analysis import (
    Tokens,
    calibration,
    image_labels,
    language,
    tagged_words,
    text_label_sets,
    text_labels,
    text_numbers,
)

NAMES = ["card", "cash", "transfer"]


def some_logits(rows: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    logits = 2 * torch.randn(rows, classes, generator=generator)
    logits[torch.arange(rows), labels] += 1
    return logits, labels


def of_texts(rows: int = 300, lengths: Sequence[int] | None = None) -> Mapping[str, Any]:
    logits, labels = some_logits(rows)
    texts = [f"text {row}" for row in range(rows)]
    return text_labels(logits, labels, NAMES, texts, lengths or [1 + row % 50 for row in range(rows)])


def is_clean(value: Any) -> bool:
    """Whether it is JSON as it stands."""
    return bool(json.loads(json.dumps(value, allow_nan=False)) == value)


def test_confusion_and_scores_by_label_are_scikit_learns() -> None:
    logits, labels = some_logits(300)
    found = of_texts()
    dense = np.zeros((3, 3), int)
    for wanted, predicted, count in found["confusion"]:
        dense[wanted, predicted] = count
    assert dense.tolist() == confusion_matrix(labels, logits.argmax(-1)).tolist()
    columns = precision_recall_fscore_support(labels, logits.argmax(-1))
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [one[name] for one in found["per_class"]] == pytest.approx(column.tolist(), rel=1e-5)
    assert [one["label"] for one in found["per_class"]] == found["labels"] == NAMES


def test_mistakes_are_the_hundred_wrong_rows_with_the_highest_confidence() -> None:
    logits, labels = some_logits(300)
    p, predicted = logits.softmax(-1).max(-1)
    wrong = [row for row in range(300) if predicted[row] != labels[row]]
    assert len(wrong) > 100, "or the test is of no use"
    expected = sorted(wrong, key=lambda row: -float(p[row]))[:100]
    found = of_texts()["mistakes"]
    assert [mistake["text"] for mistake in found] == [f"text {row}" for row in expected]
    first = expected[0]
    names = (NAMES[int(labels[first])], NAMES[int(predicted[first])])
    assert (found[0]["label"], found[0]["predicted"]) == names
    assert found[0]["confidence"] == pytest.approx(float(p[first]), rel=1e-5)


def test_a_text_is_cut_to_500_characters() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    [mistake] = text_labels(logits, torch.tensor([1]), ["a", "b"], ["x" * 501], [1])["mistakes"]
    assert mistake["text"] == "x" * 499 + "…"


def test_images_go_by_their_names_and_have_no_length() -> None:
    found = image_labels(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]), ["a", "b"], ["one.png", "two.png"])
    assert (found["task"], found["mistakes"][0]["name"], "by_length" in found) == ("image-classification", "one.png", False)
    assert is_clean(found)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_weighted_by_rows() -> None:
    confidences = np.array([0.95, 0.95, 0.99, 0.5, 0.52, 1.0])
    right = np.array([True, False, True, False, True, True])
    found = calibration(confidences, right)
    assert [one["rows"] for one in found["bins"]] == [2, 4]
    assert found["ece"] == pytest.approx((2 * abs(0.5 - 0.51) + 4 * abs(0.75 - 0.9725)) / 6)
    assert found["bins"][1] == pytest.approx({"low": 14 / 15, "high": 1.0, "confidence": 0.9725, "accuracy": 0.75, "rows": 4})


@pytest.mark.parametrize(("confidence", "low"), [(0.0, 0.0), (1 / 15, 0.0), (0.5, 7 / 15), (1.0, 14 / 15)])
def test_a_calibration_bin_holds_its_upper_edge(confidence: float, low: float) -> None:
    [one] = calibration(np.array([confidence]), np.array([True]))["bins"]
    assert one["low"] == pytest.approx(low)


def test_lengths_are_parted_by_fifths_of_the_rows_and_equal_ones_stay_together() -> None:
    found = of_texts(rows=100, lengths=[1] * 50 + list(range(2, 52)))["by_length"]
    assert [(one["from"], one["to"], one["rows"]) for one in found] == [(1, 1, 50), (2, 11, 10), (12, 31, 20), (32, 51, 20)]
    logits, labels = some_logits(100)
    right = (logits.argmax(-1) == labels).double()
    assert found[0]["accuracy"] == pytest.approx(float(right[:50].mean()), rel=1e-5)
    assert found[3]["accuracy"] == pytest.approx(float(right[80:].mean()), rel=1e-5)


def test_of_several_labels_each_decision_is_a_row_of_its_own() -> None:
    logits = torch.tensor([[4.0, -1.0], [3.0, -2.0]])
    labels = torch.tensor([[0, 1], [1, 0]])
    found = text_label_sets(logits, labels, ["rude", "spam"], ["first", "second"], [3, 4])
    assert [(one["text"], one["label"], one["predicted"]) for one in found["mistakes"]] == [
        ("first", "rude", True),
        ("first", "spam", False),
    ]
    assert [one["confidence"] for one in found["mistakes"]] == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-1))])
    assert sum(one["rows"] for one in found["calibration"]["bins"]) == 4
    assert [(one["precision"], one["recall"], one["support"]) for one in found["per_class"]] == [(0.5, 1.0, 1), (0.0, 0.0, 1)]
    assert [one["accuracy"] for one in found["by_length"]] == [0.0, 1.0]
    assert is_clean(found)


def test_numbers_have_the_spread_of_their_errors_and_the_largest_first() -> None:
    wanted = torch.arange(200.0)
    predicted = wanted + torch.linspace(-1, 1, 200)
    predicted[7] += 50
    found = text_numbers(predicted, wanted, [f"text {row}" for row in range(200)], list(range(200)))
    assert len(found["mistakes"]) == 100
    first = found["mistakes"][0]
    assert (first["text"], first["label"]) == ("text 7", 7.0)
    assert first["error"] == pytest.approx(float(predicted[7] - 7), rel=1e-5)
    assert sum(one["rows"] for one in found["residuals"]["histogram"]) == 200
    assert dict(found["residuals"]["quantiles"])[0.5] == pytest.approx(0.0051, abs=0.006)
    assert [one["rows"] for one in found["binned"]] == [20] * 10
    assert found["binned"][9]["wanted"] == pytest.approx(189.5)
    assert is_clean(found)


def of_sentences() -> Mapping[str, Any]:
    sentences = ["Ada Lovelace lives in Paris", "Bob works", "Rome wins"]
    wanted = ["B-PER I-PER O O B-LOC", "B-PER O", "B-LOC O"]
    predicted = ["B-PER O O O B-ORG", "B-PER O", "O B-PER"]
    confidences = [[0.6, 0.7, 0.9, 0.9, 0.8], [0.9, 0.9], [0.5, 0.99]]
    return tagged_words(
        [row.split() for row in predicted], [row.split() for row in wanted], [row.split() for row in sentences], confidences
    )


def test_a_sentence_shows_its_wrong_missed_and_needless_entities() -> None:
    rome, ada = of_sentences()["mistakes"]
    assert (rome["text"], rome["confidence"]) == ("Rome wins", 0.99)
    assert rome["entities"] == [
        {"words": "Rome", "label": "LOC", "predicted": None},
        {"words": "wins", "label": None, "predicted": "PER"},
    ]
    assert ada["confidence"] == 0.8
    assert ada["entities"] == [
        {"words": "Ada", "label": None, "predicted": "PER"},
        {"words": "Ada Lovelace", "label": "PER", "predicted": None},
        {"words": "Paris", "label": "LOC", "predicted": "ORG"},
    ]


def test_entities_are_scored_by_type_and_words_by_tag() -> None:
    found = of_sentences()
    scores = {one["label"]: (one["precision"], one["recall"], one["support"]) for one in found["per_entity"]}
    assert scores == {"LOC": (0.0, 0.0, 2), "ORG": (0.0, 0.0, 0), "PER": (pytest.approx(1 / 3, rel=1e-5), 0.5, 2)}
    tags = found["labels"]
    named = {(tags[wanted], tags[predicted]): count for wanted, predicted, count in found["confusion"]}
    assert named[("B-LOC", "B-ORG")] == 1
    assert sum(named.values()) == found["words"] == sum(one["rows"] for one in found["calibration"]["bins"]) == 9
    assert [(one["from"], one["rows"]) for one in found["by_length"]] == [(2, 2), (5, 1)]
    assert is_clean(found)


def of_tokens(**changes: Any) -> Mapping[str, Any]:
    tokens = {
        "rows": torch.tensor([0, 0, 1, 2, 2, 2]),
        "losses": torch.tensor([1.0, 3.0, 5.0, 0.5, 0.5, 0.5]),
        "right": torch.tensor([1, 0, 0, 1, 1, 1], dtype=torch.bool),
    }
    return language("causal-lm", Tokens(**{**tokens, **changes}), ["two", "one", "three"])


def test_texts_come_by_their_loss_for_each_token() -> None:
    found = of_tokens()
    assert [(one["text"], one["loss"], one["tokens"]) for one in found["mistakes"]] == [
        ("one", 5.0, 1),
        ("two", 2.0, 2),
        ("three", 0.5, 3),
    ]
    assert found["metrics"]["loss"] == pytest.approx(10.5 / 6)
    assert [(one["from"], one["loss"]) for one in found["by_length"]] == [(1, 5.0), (2, 2.0), (3, 0.5)]
    assert not {"by_position", "calibration", "written"} & set(found)
    assert is_clean(found)


def test_positions_and_confidences_are_looked_at_where_they_are_given() -> None:
    found = of_tokens(positions=torch.tensor([0, 1, 0, 0, 1, 2]), confidences=torch.tensor([0.9, 0.2, 0.3, 0.9, 0.9, 0.9]))
    losses = [one["loss"] for one in found["by_position"]]
    assert losses == pytest.approx([6.5 / 3, 1.75, 0.5], rel=1e-5)
    assert [one["tokens"] for one in found["by_position"]] == [3, 2, 1]
    assert found["calibration"]["ece"] > 0


def test_written_texts_are_shown_with_the_least_alike_first() -> None:
    tokens = Tokens(torch.tensor([0, 1]), torch.ones(2), torch.ones(2))
    found = language("seq2seq", tokens, ["capital of France?", "of Italy?"], ["It is Paris", "Milan"], ["It is Paris", "Rome"])
    assert [one["predicted"] for one in found["written"]] == ["Milan", "It is Paris"]
    assert (found["metrics"]["exact_match"], found["metrics"]["rouge_l"]) == (0.5, 0.5)


def test_a_model_gone_wrong_is_still_json() -> None:
    logits = torch.full((4, 3), math.nan)
    numbers = torch.tensor([math.nan, math.inf, 1.0, 2.0])
    texts, lengths = ["a", "b", "c", "d"], [1, 2, 3, 4]
    assert is_clean(text_labels(logits, torch.tensor([0, 1, 2, 0]), NAMES, texts, lengths))
    assert is_clean(text_numbers(numbers, torch.ones(4), texts, lengths))


def test_floats_are_rounded_to_six_digits() -> None:
    found = text_numbers(torch.tensor([1.0, 0.0]), torch.tensor([2 / 3, 0.0]), ["a", "b"], [1, 2])
    assert found["mistakes"][0]["label"] == 0.666667
    assert is_clean(of_texts())
