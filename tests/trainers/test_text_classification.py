"""What is special to classifying texts: kinds of labels, pairs, losses, augmentation, and what is prepared."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import intents, make_tiny_encoder
from tests.trainers.test_contract import said, weights
from trainers.configs import TextClassificationConfig, metrics_of
from trainers.contract import Report, TrainerError, TrialContext
from trainers.metrics import multi_label_metrics, regression_metrics
from trainers.models import load_tokenizer
from trainers.prepared import Prepared
from trainers.text_classification import TextClassification, prepare

Row = Mapping[str, str]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    make_tiny_encoder(folder)
    return folder


class Desk:
    """Rows in files beside the tiny encoder."""

    def __init__(self, root: Path, encoder: Path) -> None:
        self.root = root
        self.encoder = encoder
        self.named: dict[str, str] = {}

    def write(self, **splits: Sequence[Row]) -> None:
        for split, rows in splits.items():
            self.named[split] = f"dataset://rows/{split}.csv"
            with (self.root / f"{split}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

    def config(self, data: Mapping[str, Any] | None = None, **changes: Any) -> TextClassificationConfig:
        document = {
            "kind": "text-classification",
            "model": "tiny",
            "data": {**self.named, **(data or {})},
            "epochs": 1,
            "batch_size": 16,
            "learning_rate": 5e-3,
            "max_length": 32,
            "precision": "fp32",
        }
        return TextClassificationConfig.model_validate({**document, **changes})

    @property
    def context(self) -> TrialContext:
        sources = {name: self.root / f"{split}.csv" for split, name in self.named.items()}
        return TrialContext(cache=self.root / "cache", sources=sources, models={"tiny": self.encoder})

    def prepare(self, data: Mapping[str, Any] | None = None, **changes: Any) -> Prepared:
        return prepare(self.config(data, **changes), load_tokenizer(self.encoder), self.encoder, self.context)

    def trainer(self, data: Mapping[str, Any] | None = None, **changes: Any) -> TextClassification:
        return TextClassification(self.config(data, **changes), self.context)

    def last(self, data: Mapping[str, Any] | None = None, **changes: Any) -> Report:
        return list(self.trainer(data, **changes).reports())[-1]

    def exported(self, trainer: TextClassification) -> "Exported":
        folder = self.root / "export"
        folder.mkdir()
        trainer.export(folder)
        return Exported(folder)


class Exported:
    """An export, with transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def outputs(self, *texts: Sequence[str]) -> Tensor:
        """For texts, or for texts and their pairs."""
        rows = [
            self.model(**self.tokenizer(*row, return_tensors="pt", truncation=True)).logits[0] for row in zip(*texts, strict=True)
        ]
        return torch.stack(rows)


@pytest.fixture
def desk(tmp_path: Path, encoder: Path) -> Desk:
    return Desk(tmp_path, encoder)


def single(count: int, start: int = 0) -> list[Row]:
    return [{"text": text, "label": label} for text, label in intents()[start : start + count]]


def several(count: int, start: int = 0, separator: str = "|") -> list[Row]:
    """The label, `money` where money is spoken of, and none for what is about cards."""
    return [
        {"text": text, "label": separator.join([label] * (label != "card") + ["money"] * ("money" in text))}
        for text, label in intents()[start : start + count]
    ]


def numbers(count: int, start: int = 0) -> list[Row]:
    """How many words a text has, over ten."""
    return [{"text": text, "label": str(len(text.split()) / 10)} for text, _ in intents()[start : start + count]]


def pairs(count: int, start: int = 0) -> list[Row]:
    """Whether two texts have the same intent."""
    rows = intents()
    return [
        {"text": one, "other": other, "label": "same" if first == second else "different"}
        for (one, first), (other, second) in list(zip(rows, rows[400:] + rows[:400], strict=True))[start : start + count]
    ]


def test_several_labels_are_reported_and_exported_as_such(desk: Desk) -> None:
    desk.write(train=several(120), validation=several(40, 120), test=several(30, 160))
    trainer = desk.trainer(problem="multi-label", epochs=40, learning_rate=1e-2, dropout=0.0)
    report = list(trainer.reports())[-1]
    assert set(report.metrics) == metrics_of(desk.config(problem="multi-label"))
    assert trainer.facts["labels"] == ["balance", "loan", "money", "transfer", "travel"]
    assert report.metrics["validation/f1_micro"] > 0.6
    exported = desk.exported(trainer)
    assert exported.model.config.problem_type == "multi_label_classification"
    wanted = torch.tensor(
        [[float(label in row["label"].split("|")) for label in trainer.facts["labels"]] for row in several(40, 120)]
    )
    measured = multi_label_metrics(exported.outputs([row["text"] for row in several(40, 120)]), wanted)
    for name, value in measured.items():
        assert report.metrics[f"validation/{name}"] == pytest.approx(value, abs=1e-5), name
    assert trainer.analysis()["problem"] == "multi-label"


def test_a_text_may_have_no_label_when_it_may_have_several(desk: Desk) -> None:
    desk.write(train=several(60), validation=several(20, 60))
    labels = desk.prepare(problem="multi-label").array("train-labels")
    assert labels.shape == (60, 5)
    assert labels.sum(1).min() == 0
    assert desk.prepare(problem="multi-label").facts["dropped"]["empty"] == 0


def test_labels_are_parted_by_what_stands_between_them(desk: Desk) -> None:
    desk.write(train=several(60, separator=" ; "), validation=several(20, 60, separator=" ; "))
    assert desk.prepare({"label_separator": ";"}, problem="multi-label").facts["labels"] == [
        "balance", "loan", "money", "transfer", "travel",
    ]  # fmt: skip


def test_numbers_are_reported_and_exported_as_such(desk: Desk) -> None:
    desk.write(train=numbers(120), validation=numbers(40, 120), test=numbers(30, 160))
    trainer = desk.trainer(problem="regression", epochs=15, dropout=0.0)
    report = list(trainer.reports())[-1]
    assert set(report.metrics) == metrics_of(desk.config(problem="regression"))
    assert report.metrics["validation/pearson"] > 0.6
    exported = desk.exported(trainer)
    assert (exported.model.config.problem_type, exported.model.config.num_labels) == ("regression", 1)
    rows = numbers(40, 120)
    wanted = torch.tensor([float(row["label"]) for row in rows])
    for name, value in regression_metrics(exported.outputs([row["text"] for row in rows])[:, 0], wanted).items():
        assert report.metrics[f"validation/{name}"] == pytest.approx(value, abs=1e-4), name
    assert set(trainer.test(desk.root / "export")) == {f"test/{name}" for name in regression_metrics(wanted, wanted)}
    assert trainer.analysis()["problem"] == "regression"


@pytest.mark.parametrize("label", ["many", "nan", "inf"])
def test_what_is_no_number_is_named_with_its_row(desk: Desk, label: str) -> None:
    desk.write(train=[*numbers(3), {"text": "a text", "label": label}], validation=numbers(3, 10))
    with pytest.raises(TrainerError, match=rf"train\.csv: row 4 has the label '{label}', which is no finite number"):
        desk.prepare(problem="regression")


def test_pairs_are_trained_on_as_transformers_reads_them(desk: Desk) -> None:
    """A BERT is told which text a token is of; trained without, the export would say something else."""
    desk.write(train=pairs(120), validation=pairs(40, 120), test=pairs(30, 160))
    trainer = desk.trainer({"text_pair": "other"}, epochs=2, max_length=20)
    report = list(trainer.reports())[-1]
    exported, rows = desk.exported(trainer), pairs(40, 120)
    logits = exported.outputs([row["text"] for row in rows], [row["other"] for row in rows])
    wanted = torch.tensor([exported.model.config.label2id[row["label"]] for row in rows])
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    assert report.metrics["validation/loss"] == pytest.approx(float(loss), abs=1e-5)
    assert trainer.facts["cut"]["validation"] > 0, "some of them do not fit"
    types = trainer._inputs([0, 1], 0)[1]
    assert types is not None
    assert set(types.ravel().tolist()) == {0, 1}
    assert "\n" in trainer.analysis()["mistakes"][0]["text"]


def test_pairs_are_changed_with_what_is_known_of_their_tokens(desk: Desk) -> None:
    desk.write(train=pairs(60), validation=pairs(20, 60))
    trainer = desk.trainer({"text_pair": "other"}, augmentation={"token_dropout": 0.5})
    separator = trainer._tokenizer.sep_token_id
    ids, types = trainer._inputs(range(60), 0)
    assert types is not None
    assert ids.shape == types.shape
    for row, kinds in zip(ids, types, strict=True):
        first, end = np.flatnonzero(row == separator)
        assert kinds[: end + 1].tolist() == [0] * (first + 1) + [1] * (end - first)


def test_a_pair_that_lacks_a_text_is_no_row(desk: Desk) -> None:
    desk.write(train=[*pairs(30), {"text": "alone", "other": " ", "label": "same"}], validation=pairs(10, 30))
    assert desk.prepare({"text_pair": "other"}).facts["dropped"]["empty"] == 1


def test_a_text_alone_is_said_to_be_of_no_pair(desk: Desk) -> None:
    desk.write(train=single(30), validation=single(10, 30))
    assert desk.trainer()._inputs([0, 1], 0)[1] is None


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (single, {"loss": "focal"}),
        (single, {"class_weights": "balanced"}),
        (single, {"label_smoothing": 0.2}),
        (several, {"problem": "multi-label", "loss": "focal"}),
        (several, {"problem": "multi-label", "class_weights": "balanced"}),
        (numbers, {"problem": "regression", "loss": "huber", "huber_delta": 0.1}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_another_loss_trains_to_something_else_and_adds_up_over_micro_batches(
    desk: Desk, rows: Any, changes: dict[str, Any]
) -> None:
    desk.write(train=rows(90), validation=rows(30, 90))
    problem = {"problem": changes.get("problem", "single-label"), "dropout": 0.0, "epochs": 2}
    plain, other, parts = (
        desk.last(**problem),
        desk.last(**{**problem, **changes}),
        desk.last(**{**problem, **changes}, micro_batch_size=5),
    )
    assert other.metrics["train/loss"] != pytest.approx(plain.metrics["train/loss"], rel=1e-3)
    assert other.metrics["train/loss"] == pytest.approx(parts.metrics["train/loss"], rel=1e-3)


def test_balanced_weights_find_what_is_rare(desk: Desk) -> None:
    rows = [row for row in single(600) if row["label"] in {"card", "loan"}]
    loans = [row for row in rows if row["label"] == "loan"]
    desk.write(train=[*(row for row in rows if row["label"] == "card"), *loans[:6]], validation=loans[50:80])
    plain, balanced = (desk.last(class_weights=asked, epochs=2, dropout=0.0) for asked in ("none", "balanced"))
    assert balanced.metrics["validation/loss"] < 0.8 * plain.metrics["validation/loss"], "all validation rows are rare ones"


def test_augmentation_changes_what_is_trained_on_anew_each_epoch_and_nothing_else(desk: Desk) -> None:
    desk.write(train=single(60), validation=single(20, 60))
    plain, changed = desk.trainer(), desk.trainer(augmentation={"token_dropout": 0.3, "span_masking": 0.3})
    first, again, later = (changed._inputs(range(60), epoch)[0] for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not (first.shape == later.shape and np.array_equal(first, later))
    assert (first >= 0).sum() < (plain._inputs(range(60), 0)[0] >= 0).sum()
    assert np.array_equal(changed._inputs([7], 1)[0][0], later[7][later[7] >= 0]), "a row is changed alike in any batch"
    assert np.array_equal(plain._padded("validation", range(20))[0], changed._padded("validation", range(20))[0])


def test_every_row_keeps_its_text_and_its_label(desk: Desk) -> None:
    desk.write(train=single(20), validation=single(5, 20))
    found = desk.prepare()
    tokens, tokenizer = found.ragged("train"), load_tokenizer(desk.encoder)
    texts = [tokenizer.decode(tokens[row], skip_special_tokens=True) for row in range(len(tokens))]
    labels = [found.facts["labels"][number] for number in found.array("train-labels")]
    assert sorted(zip(texts, labels, strict=True)) == sorted(
        (row["text"].replace("'", " ' "), row["label"]) for row in single(20)
    )
    assert found.texts("validation-texts") == [row["text"] for row in single(5, 20)]


def test_validation_and_test_rows_are_held_back_in_each_labels_proportion(desk: Desk) -> None:
    desk.write(train=single(400))
    found = desk.prepare({"validation_fraction": 0.2, "test_fraction": 0.1})
    assert found.facts["rows"] == {"train": 280, "validation": 80, "test": 40}
    labels = [row["label"] for row in single(400)]
    for split, share in (("validation", 0.2), ("test", 0.1)):
        counts = np.bincount(found.array(f"{split}-labels"), minlength=5)
        assert all(
            abs(count - share * labels.count(label)) <= 1 for count, label in zip(counts, sorted(set(labels)), strict=True)
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_label_of_one_row_alone_is_never_held_back(desk: Desk, seed: int) -> None:
    texts = [row["text"] for row in single(12)]
    desk.write(train=[{"text": text, "label": f"all|rare {at}" if at < 6 else "all"} for at, text in enumerate(texts)])
    found = desk.prepare({"validation_fraction": 0.4, "split_seed": seed}, problem="multi-label")
    assert found.facts["labels"] == ["all", *(f"rare {at}" for at in range(6))]


def test_labels_that_are_numbers_come_in_their_order(desk: Desk) -> None:
    desk.write(train=[{"text": f"{row['text']} x", "label": str(at % 12)} for at, row in enumerate(single(40))])
    assert desk.prepare().facts["labels"] == [str(number) for number in range(12)]


def test_facts_name_what_was_cut_and_hashes(desk: Desk) -> None:
    desk.write(train=single(20), validation=single(5, 20))
    facts = desk.prepare(max_length=6).facts
    assert facts["cut"] == {"train": 20, "validation": 5}
    assert desk.prepare(max_length=6).ragged("train").lengths.max() == 6
    assert {split: len(sha256) for split, sha256 in facts["sha256"].items()} == {"train": 64, "validation": 64}


@pytest.mark.parametrize("change", [{"max_length": 8}, {"data": {"validation_fraction": 0.3}}, {"data": {"lowercase": True}}])
def test_rows_under_other_settings_are_prepared_anew(desk: Desk, change: dict[str, Any]) -> None:
    desk.write(train=single(50))
    desk.prepare()
    desk.prepare(**change)
    assert len(list((desk.root / "cache").iterdir())) == 2


def test_rows_that_changed_are_prepared_anew(desk: Desk) -> None:
    desk.write(train=single(50))
    desk.prepare()
    desk.write(train=single(49))
    assert desk.prepare().facts["rows"]["train"] < 49
    assert len(list((desk.root / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("labels", "changes", "said"),
    [
        (("a", "a", "a"), {}, "have only the label 'a': there is nothing to tell apart"),
        (("a", "b", "c"), {}, "The validation rows have labels that no training row has, such as 'c'"),
        (("", "", ""), {"problem": "multi-label"}, "have no label"),
    ],
)
def test_rows_that_nothing_can_be_learnt_from_are_refused(
    desk: Desk, labels: tuple[str, str, str], changes: dict[str, Any], said: str
) -> None:
    one, two, three = ({"text": text, "label": label} for text, label in zip(("one", "two", "three"), labels, strict=True))
    desk.write(train=[one, two], validation=[three])
    with pytest.raises(TrainerError, match=said):
        desk.prepare(**changes)
    assert not list((desk.root / "cache").iterdir())


def test_an_export_names_its_labels(desk: Desk) -> None:
    desk.write(train=single(60), validation=single(20, 60))
    desk.exported(desk.trainer())
    config = json.loads((desk.root / "export" / "config.json").read_text())
    assert config["id2label"] == {"0": "balance", "1": "card", "2": "loan", "3": "transfer", "4": "travel"}


def test_there_is_no_analysis_before_the_first_report_and_no_test_without_test_rows(desk: Desk) -> None:
    desk.write(train=single(60), validation=single(20, 60))
    trainer = desk.trainer()
    assert trainer.analysis() == {}
    desk.exported(trainer)
    assert trainer.test(desk.root / "export") == {}


def test_batches_by_chance_train_to_something_else(desk: Desk) -> None:
    desk.write(train=single(60), validation=single(20, 60))
    assert said([desk.last(group_by_length=False)]) != said([desk.last()])


def test_steps_in_bf16_leave_weights_in_fp32(desk: Desk) -> None:
    desk.write(train=single(60), validation=single(20, 60))
    trainer = desk.trainer(precision="bf16")
    list(trainer.reports())
    assert trainer.facts["training_precision"] == "bf16"
    assert {tensor.dtype for name, tensor in weights(trainer).items() if "position_ids" not in name} == {torch.float32}
