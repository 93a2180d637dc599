"""How good predictions are, held against scikit-learn, SciPy and seqeval."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, r2_score, root_mean_squared_error

from trainers.metrics import (
    Entity,
    classification_metrics,
    entities,
    entity_metrics,
    exact_match,
    f1_macro,
    language_metrics,
    multi_label_metrics,
    regression_metrics,
    rouge_l,
)

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40)


@given(PAIRS)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    wanted = f1_score(labels.numpy(), predicted.numpy(), average="macro", zero_division=0)
    assert f1_macro(predicted, labels, 6) == pytest.approx(wanted)


def test_accuracy_and_loss_are_means_over_rows() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    found = classification_metrics(logits, labels)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(log_loss(labels.numpy(), logits.double().softmax(-1).numpy(), labels=[0, 1, 2]))


ROWS = st.lists(st.tuples(*[st.tuples(st.floats(-4, 4), st.booleans())] * 3), min_size=1, max_size=12)


@given(ROWS)
def test_multi_label_scores_are_scikit_learns(rows: list[tuple[tuple[float, bool], ...]]) -> None:
    logits = torch.tensor([[logit for logit, _ in row] for row in rows])
    labels = torch.tensor([[int(label) for _, label in row] for row in rows])
    found = multi_label_metrics(logits, labels)
    predicted, wanted = (logits >= 0).int().numpy(), labels.numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(wanted, predicted))
    assert found["f1_micro"] == pytest.approx(f1_score(wanted, predicted, average="micro", zero_division=0))
    assert found["f1_macro"] == pytest.approx(f1_score(wanted, predicted, average="macro", zero_division=0))
    p = logits.double().sigmoid().numpy().ravel()
    assert found["loss"] == pytest.approx(log_loss(wanted.ravel(), np.stack([1 - p, p], -1), labels=[0, 1]))


NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, width=32))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_regression_scores_are_scikit_learns_and_scipys(pairs: list[tuple[float, float]]) -> None:
    predicted, wanted = (np.array(column) for column in zip(*pairs, strict=True))
    # SciPy warns of columns that are nearly the same, and loses digits there.
    assume(all(np.ptp(column) > 1e-3 * (1 + np.abs(column).max()) for column in (predicted, wanted)))
    found = regression_metrics(torch.tensor(predicted), torch.tensor(wanted))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(wanted, predicted))
    assert found["mae"] == pytest.approx(mean_absolute_error(wanted, predicted))
    assert found["r2"] == pytest.approx(r2_score(wanted, predicted))
    assert found["pearson"] == pytest.approx(pearsonr(predicted, wanted).statistic, abs=1e-6)
    assert found["spearman"] == pytest.approx(spearmanr(predicted, wanted).statistic, abs=1e-9)
    assert found["loss"] == pytest.approx(found["rmse"] ** 2)


@pytest.mark.parametrize(
    ("predicted", "wanted", "r2"),
    [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], -1.5), ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], 0.0), ([2.0, 2.0], [2.0, 2.0], 1.0)],
)
def test_numbers_that_are_all_the_same_correlate_with_nothing(
    predicted: Sequence[float], wanted: Sequence[float], r2: float
) -> None:
    found = regression_metrics(torch.tensor(predicted), torch.tensor(wanted))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)
    assert found["r2"] == pytest.approx(r2)


@given(st.lists(st.tuples(st.floats(-1e38, 1e38), st.floats(-1e38, 1e38)), min_size=1, max_size=6))
def test_no_regression_score_is_ever_nan(pairs: list[tuple[float, float]]) -> None:
    predicted, wanted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert not any(math.isnan(value) for value in regression_metrics(predicted, wanted).values())


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], {("PER", 0, 1), ("LOC", 3, 3)}),
        (["I-PER", "I-PER", "O", "I-LOC"], {("PER", 0, 1), ("LOC", 3, 3)}),
        (["B-PER", "B-PER"], {("PER", 0, 0), ("PER", 1, 1)}),
        (["I-PER", "I-LOC"], {("PER", 0, 0), ("LOC", 1, 1)}),
        (["B-PER", "I-LOC", "I-LOC", "B-LOC"], {("PER", 0, 0), ("LOC", 1, 2), ("LOC", 3, 3)}),
        (["O", "I-PER", "B-PER", "I-PER"], {("PER", 1, 1), ("PER", 2, 3)}),
        (["S-PER", "B-PER", "E-PER", "I-PER"], {("PER", 0, 0), ("PER", 1, 2), ("PER", 3, 3)}),
        (["B", "I", "O", "I"], {("_", 0, 1), ("_", 3, 3)}),
        (["B-to-city", "I-to-city"], {("to-city", 0, 1)}),
        (["O", "O"], set()),
        ([], set()),
    ],
)
def test_entities_are_those_of_seqeval(tags: Sequence[str], wanted: set[Entity]) -> None:
    assert entities(tags) == wanted


def test_a_tag_that_is_no_entitys_is_one_of_a_single_word() -> None:
    assert entities(["NOUN", "NOUN", "O", "OTHER"]) == {("NOUN", 0, 0), ("NOUN", 1, 1), ("OTHER", 3, 3)}


@pytest.mark.parametrize(
    ("wanted", "predicted", "scores"),
    [
        (
            ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"],
            ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"],
            (0.5, 0.5, 0.5, 0.5, 0.8),
        ),
        (["B-PER I-PER I-LOC O I-ORG"], ["I-PER B-PER I-LOC O B-ORG"], (1 / 2, 2 / 3, 4 / 7, 2 / 3, 0.4)),
        (["O O"], ["B-PER I-PER"], (0.0, 0.0, 0.0, 0.0, 0.0)),
        (["B-PER B-PER O B-LOC", "B-LOC I-LOC"], ["B-PER I-PER O B-LOC", "B-LOC O"], (1 / 3, 1 / 4, 2 / 7, 1 / 4, 2 / 3)),
        (["O O"], ["O O"], (0.0, 0.0, 0.0, 0.0, 1.0)),
    ],
)
def test_entity_scores_are_those_of_seqeval(wanted: Sequence[str], predicted: Sequence[str], scores: tuple[float, ...]) -> None:
    found = entity_metrics([row.split() for row in predicted], [row.split() for row in wanted])
    assert [found[name] for name in ("precision", "recall", "f1", "f1_macro", "accuracy")] == pytest.approx(scores)


def test_a_sentence_with_a_tag_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        entity_metrics([["O"]], [["O", "O"]])


def test_language_scores_are_for_each_token() -> None:
    found = language_metrics(math.log(8) * 5, right=2, tokens=5)
    assert found == pytest.approx({"loss": math.log(8), "perplexity": 8.0, "accuracy": 0.4})


def test_perplexity_stays_finite() -> None:
    assert math.isfinite(language_metrics(1e9, right=0, tokens=10)["perplexity"])


def test_exact_match_sees_past_the_white_space_around_a_text_and_nothing_else() -> None:
    assert exact_match([" Paris\n", "paris", "Rome"], ["Paris", "Paris", "Rome"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("predicted", "wanted", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 3 / 4),  # Lin 2004, section 3
        ("the gunman kill police", "police killed the gunman", 1 / 2),
        ("The GUNMAN", "the gunman", 1.0),
        ("a b c", "a b c d e f", 2 * 3 / 9),
        ("", "the gunman", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_is_the_papers(predicted: str, wanted: str, score: float) -> None:
    assert rouge_l([predicted], [wanted]) == pytest.approx(score)


def test_rouge_l_is_a_mean_over_rows() -> None:
    assert rouge_l(["a", "b"], ["a", "c"]) == pytest.approx(0.5)
