"""What is special to tagging words: one tag a word, however many tokens it has, or none."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    CanineTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from tests.trainers.token_classification_case import DOCUMENT, Sentence, make_tiny_tagger, sentences, write_conll, write_jsonl
from trainers.configs import TokenClassificationConfig
from trainers.contract import TrainerError, TrialContext
from trainers.losses import IGNORED
from trainers.token_classification import TokenClassification

_LONG: Sentence = [("ada", "B-PER"), *[("left", "O")] * 20, ("new", "B-LOC"), ("york", "I-LOC")]
_NOTHING = "\u200d"
"""A word that a BERT's tokenizer makes nothing of."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_tagger(folder)
    return folder


class Desk:
    """Rows in files beside a tiny model."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.model = model

    def write(self, train: Sequence[Sentence], validation: Sequence[Sentence]) -> "Desk":
        write_conll(self.root / "train.conll", train)
        write_jsonl(self.root / "validation.jsonl", validation)
        return self

    def trainer(self, **changes: Any) -> TokenClassification:
        data = {"train": "train.conll", "validation": "validation.jsonl"}
        config = TokenClassificationConfig.model_validate({**DOCUMENT, "data": data, **changes})
        sources = {name: self.root / name for name in config.data.named.values()}
        return TokenClassification(config, TrialContext(self.root / "cache", sources, {"tiny": self.model}))

    def ids(self, words: Sequence[str]) -> set[int]:
        tokenizer: Any = AutoTokenizer.from_pretrained(self.model)
        return set(tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)["input_ids"])


@pytest.fixture
def desk(tmp_path: Path, tiny: Path) -> Desk:
    return Desk(tmp_path, tiny).write(sentences()[:40], sentences()[40:60])


def always(trainer: TokenClassification, tag: str) -> TokenClassification:
    """The trainer with a model that gives every word this tag."""
    head = trainer._model.classifier
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[trainer._names.index(tag)] = 5.0
    return trainer


def test_the_tags_come_in_order_with_o_first(desk: Desk) -> None:
    assert desk.trainer().facts["labels"] == ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]


def test_a_words_tag_is_at_its_first_token_alone(desk: Desk) -> None:
    sentence: Sentence = [("grace", "B-PER"), ("hopper", "I-PER"), (_NOTHING, "O"), ("left", "O"), ("paris", "B-LOC")]
    trainer = desk.write([sentence, *sentences()[:5]], sentences()[10:15]).trainer()
    names = [trainer._names[tag] if tag != IGNORED else "" for tag in trainer._train.labels([0])[0]]
    assert names[:9] == ["", "B-PER", "", "I-PER", "", "O", "B-LOC", "", ""], "[CLS] gra ##ce hop ##per left pa ##ris [SEP]"
    assert set(names[9:]) <= {""}


def test_a_word_behind_the_longest_length_counts_as_predicted_o(desk: Desk) -> None:
    desk.write(sentences()[:10], [_LONG])
    trainer = always(desk.trainer(max_length=8), "B-PER")
    found = trainer._validate()
    assert trainer.facts["cut"]["validation"] == 1
    assert found["accuracy"] == pytest.approx((1 + 15) / 23), "ada, and of 20 times left the 15 that no token is left of"
    assert found["recall"] == 0.5, "the person is found, the place is behind"
    logits = torch.tensor([0, 0, 5.0, 0, 0]).double()
    wanted = [cross_entropy(logits, torch.tensor(tag)) for tag in (2, 0, 0, 0, 0, 0)]
    assert found["loss"] == pytest.approx(float(sum(wanted) / 6), rel=1e-6)


def test_the_analysis_shows_an_entity_that_the_model_never_saw(desk: Desk) -> None:
    trainer = always(desk.write(sentences()[:10], [_LONG]).trainer(max_length=8), "O")
    trainer._validate()
    found = json.loads(json.dumps(trainer.analysis(), allow_nan=False))
    missed = [(entity["words"], entity["label"], entity["predicted"]) for entity in found["mistakes"][0]["entities"]]
    assert missed == [("ada", "PER", None), ("new york", "LOC", None)]
    assert 0.9 < found["mistakes"][0]["confidence"] < 1
    assert sum(one["rows"] for one in found["calibration"]["bins"]) == 6, "no word without a prediction is right or wrong"


def test_a_row_of_which_no_token_is_left_is_dropped_as_empty(desk: Desk) -> None:
    nothing: Sentence = [(_NOTHING, "O"), (_NOTHING, "B-PER")]
    trainer = desk.write([*sentences()[:5], nothing], [*sentences()[10:13], nothing]).trainer()
    assert trainer.facts["rows"] == {"train": 5, "validation": 3}
    assert trainer.facts["dropped"]["empty"] == 2


def test_a_word_that_normalising_empties_keeps_its_place(desk: Desk) -> None:
    sentence: Sentence = [("\u3000", "O"), ("ada", "B-PER"), ("left", "O")]
    trainer = always(desk.write(sentences()[:5], [sentence]).trainer(), "B-PER")
    assert trainer._validate()["accuracy"] == pytest.approx(2 / 3)
    assert trainer._predicted(trainer._sentences("validation"), trainer._evaluated(trainer._model, "validation")) == [
        ["O", "B-PER", "B-PER"]
    ]


def test_columns_of_text_are_split_at_spaces(desk: Desk) -> None:
    for split, rows in (("train", sentences()[:20]), ("validation", sentences()[20:30])):
        lines = [f'"{" ".join(word for word, _ in row)}",{" ".join(tag for _, tag in row)}' for row in rows]
        (desk.root / f"{split}.csv").write_text("\n".join(["words,bio", *lines]) + "\n", encoding="utf-8")
    table = desk.trainer(data={"train": "train.csv", "validation": "validation.csv", "tokens": "words", "tags": "bio"})
    lists = desk.write(sentences()[:20], sentences()[20:30]).trainer()
    for name in ("train", "train-places", "train-tags", "validation", "validation-tags"):
        assert np.array_equal(table._rows.array(name), lists._rows.array(name)), name


def test_a_row_with_more_words_than_tags_is_named(desk: Desk) -> None:
    rows = [{"tokens": ["ada"], "tags": ["B-PER"]}, {"tokens": ["ada", "left"], "tags": ["B-PER"]}]
    (desk.root / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TrainerError, match=r"validation\.jsonl: row 2 has 2 words and 1 tags: give each word one tag"):
        desk.trainer()


def test_a_tag_without_a_letter_is_named(desk: Desk) -> None:
    (desk.root / "validation.jsonl").write_text(json.dumps({"tokens": ["ada", "left"], "tags": ["B-PER", " "]}))
    with pytest.raises(TrainerError, match=r"validation\.jsonl: row 1 has 2 words and 1 tags"):
        desk.trainer()


def test_a_tag_that_no_training_row_has_is_named(desk: Desk) -> None:
    desk.write(sentences()[:5], [[("ada", "B-SHIP")]])
    with pytest.raises(TrainerError, match=r"validation rows have tags that no training row has, such as 'B-SHIP'"):
        desk.trainer()


def test_rows_with_nothing_but_o_are_refused(desk: Desk) -> None:
    desk.write([[(word, "O") for word, _ in row] for row in sentences()[:5]], sentences()[10:12])
    with pytest.raises(TrainerError, match=r"only the tag 'O': there is nothing to learn"):
        desk.trainer()


def test_a_tokenizer_that_does_not_know_its_words_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.model = tmp_path / "characters"
    CanineTokenizer().save_pretrained(desk.model)
    with pytest.raises(TrainerError, match=r"does not say which word a token is of: use a model with a `tokenizer\.json`"):
        desk.trainer()


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_tag_is_never_held_back_whole(desk: Desk, seed: int) -> None:
    ship, place = ("cape", "B-SHIP"), ("paris", "B-LOC")
    rare: list[Sentence] = [[ship, place], [("rome", "B-RIVER"), ship, place]]
    write_conll(desk.root / "train.conll", [*sentences()[:10], *rare])
    trainer = desk.trainer(data={"train": "train.conll", "validation_fraction": 0.4, "split_seed": seed})
    assert {"B-SHIP", "B-RIVER"} <= set(trainer.facts["labels"])


def test_dropped_tokens_take_their_tags_with_them_and_no_others(desk: Desk) -> None:
    names = {
        tag: [word for row in sentences() for word, given in row if given == tag] for tag in ("B-PER", "I-PER", "B-LOC", "I-LOC")
    }
    trainer = desk.trainer(augmentation={"token_dropout": 0.5})
    plain = desk.trainer()
    rows = range(len(plain._train.tokens))
    firsts = {tag: set[int]() for tag in names}
    shortened = 0
    for epoch in range(5):
        ids, labels = trainer._inputs(rows, epoch)
        shortened += int((ids >= 0).sum() < plain._train.tokens.lengths.sum())
        assert (labels != IGNORED).any(1).all(), "some word is left of each row"
        for tag, seen in firsts.items():
            seen |= set(ids[labels.numpy() == trainer._names.index(tag)].tolist())
    assert shortened == 5
    for tag, seen in firsts.items():
        pieces = desk.ids(names[tag])
        assert seen <= pieces, tag
    learned, tags = plain._inputs(rows, 0)
    for tag in ("B-PER", "I-PER"):
        begin = set(learned[tags.numpy() == plain._names.index(tag)].tolist())
        assert firsts[tag] - begin, "a word that lost its first token is learned at the next one"


@pytest.mark.parametrize("changes", [{}, {"class_weights": "balanced"}])
def test_a_row_weighs_the_same_whichever_of_its_words_are_left(desk: Desk, changes: dict[str, Any]) -> None:
    trainer = always(desk.trainer(augmentation={"token_dropout": 0.5}, **changes), "O")
    with torch.no_grad():
        trainer._model.classifier.bias.zero_()
    rows = [3, 1, 8]
    assert trainer._loss(rows, 0).item() / trainer._weight(rows) == pytest.approx(math.log(5), rel=1e-5)


def test_hidden_tokens_keep_their_tags(desk: Desk) -> None:
    trainer = desk.trainer(augmentation={"span_masking": 0.5})
    rows = range(len(trainer._train.tokens))
    ids, labels = trainer._inputs(rows, 0)
    assert np.array_equal(labels.numpy(), trainer._train.labels(rows))
    assert (ids == trainer._tokenizer.mask_token_id).sum() > 100


def test_the_loss_is_torchs_mean_over_words_by_the_weights_of_their_tags(desk: Desk) -> None:
    trainer = desk.trainer(class_weights="balanced", label_smoothing=0.1)
    trainer._model.eval()
    rows = [0, 5, 9]
    weights = trainer._weights
    assert weights is not None
    assert weights[0] < 1 < weights[trainer._names.index("I-PER")]
    logits = trainer._logits(trainer._model, trainer._train.tokens.padded(rows, -1))
    labels = torch.from_numpy(trainer._train.labels(rows))
    wanted = cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, label_smoothing=0.1)
    assert trainer._loss(rows, 0).item() / trainer._weight(rows) == pytest.approx(wanted.item(), rel=1e-5)


def test_focal_loss_weighs_easy_words_down(desk: Desk) -> None:
    losses = [
        always(desk.trainer(dropout=0.0, **changes), "O")._loss([0, 1], 0).item()
        for changes in ({}, {"loss": "focal", "focal_gamma": 0.0}, {"loss": "focal"})
    ]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] < losses[0]


def test_frozen_layers_are_computed_once_and_change_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = desk.trainer(frozen_layers=1, epochs=2, dropout=0.0)
    monkeypatch.setattr("trainers.token_classification.frozen_features", lambda *_: None)
    computed = desk.trainer(frozen_layers=1, epochs=2, dropout=0.0)
    assert (kept.facts["frozen_features"], computed.facts["frozen_features"]) == (True, False)
    for one, other in zip(kept.reports(), computed.reports(), strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)


def _bytes_tokenizer() -> RobertaTokenizer:
    letters = "".join(sorted({letter for row in sentences() for word, _ in row for letter in word if letter.isascii()}))
    vocabulary = {
        token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *letters, "Ġa", "Ġn"])
    }
    return RobertaTokenizer(vocab=vocabulary, merges=[("Ġ", "a"), ("Ġ", "n")], model_max_length=64)


@pytest.mark.parametrize("is_its_own_class", [True, False], ids=["roberta", "tokenizer.json alone"])
def test_words_are_tokenised_as_they_are_within_a_text_and_so_by_the_export(
    desk: Desk, tmp_path: Path, *, is_its_own_class: bool
) -> None:
    desk.model, exported = tmp_path / "roberta", tmp_path / "exported"
    tokenizer: PreTrainedTokenizerBase = _bytes_tokenizer()
    if not is_its_own_class:
        special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=_bytes_tokenizer().backend_tokenizer, **special)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
        max_position_embeddings=80, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(desk.model)
    tokenizer.save_pretrained(desk.model)
    trainer = desk.write([[("new", "O"), ("ada", "B-PER")], *sentences()[1:5]], sentences()[11:14]).trainer(max_length=60)
    assert trainer._tokenizer.convert_ids_to_tokens(trainer._train.tokens[0].tolist()) == [
        "<s>", "Ġn", "e", "w", "Ġa", "d", "a", "</s>",
    ]  # fmt: skip
    exported.mkdir()
    trainer.export(exported)
    ours: Any = AutoTokenizer.from_pretrained(exported)
    assert ours(["new", "ada"], is_split_into_words=True)["input_ids"] == trainer._train.tokens[0].tolist()
