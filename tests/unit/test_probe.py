"""Trying models on rows, in this process; `test_model_ranking.py` does it in a child."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel

from tests.tiny import intents, make_tiny_encoder, write_intents
from trainers.linear_head import fit_head, held_back_logits
from trainers.probe import Request, probe

SENTENCES = [
    (["send", "10", "euros", "to", name], ["O", "B-AMOUNT", "I-AMOUNT", "O", "B-NAME"]) for name in ("ann", "bob", "eve")
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "encoder"
    make_tiny_encoder(folder)
    return folder


def answer(rows: Path, kind: str = "text-classification", **changes: Any) -> list[Mapping[str, Any]]:
    columns = changes.pop("columns", {"text": "text", "label": "label"})
    models = {name: str(folder) for name, folder in changes.pop("models").items()}
    return list(probe(Request(kind, str(rows), columns, models, str(rows.parent / "cache"), **changes)))


def the_score(rows: Path, kind: str, model: Path, metric: str, columns: Mapping[str, str]) -> float:
    [line] = answer(rows, kind, models={"one": model}, columns=columns)
    assert "metrics" in line, line
    return float(line["metrics"][metric])


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_an_encoder_whose_features_tell_the_labels_apart_does_better_than_chance(tmp_path: Path, encoder: Path) -> None:
    write_intents(tmp_path, train=520)
    [line] = answer(tmp_path / "train.csv", models={"tiny": encoder})
    assert (line["model"], line["rows"]) == ("tiny", 520)
    assert line["metrics"]["accuracy"] > 0.5, "five labels, so chance is 0.2"
    assert line["milliseconds_per_row"] > 0


def test_labels_that_have_nothing_to_do_with_the_texts_are_guessed(tmp_path: Path, encoder: Path) -> None:
    chance = np.random.default_rng(0).integers(2, size=300)
    rows = [{"text": text, "label": str(label)} for (text, _), label in zip(intents(), chance, strict=False)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert the_score(path, "text-classification", encoder, "accuracy", {"text": "text", "label": "label"}) < 0.65


def test_the_same_rows_and_model_give_the_same_answer_from_features_on_disk(tmp_path: Path, encoder: Path) -> None:
    write_intents(tmp_path)
    first = answer(tmp_path / "validation.csv", models={"tiny": encoder})
    [facts] = (tmp_path / "cache").glob("*/facts.json")
    kept = json.loads(facts.read_text())
    facts.write_text(json.dumps({**kept, "milliseconds_per_row": 42.0}))
    [again] = answer(tmp_path / "validation.csv", models={"tiny": encoder})
    assert (again["metrics"], again["milliseconds_per_row"]) == (first[0]["metrics"], 42.0)


def test_no_more_than_a_thousand_rows_are_looked_at(tmp_path: Path, encoder: Path) -> None:
    rows = [{"text": f"{text} {at}", "label": label} for at in range(2) for text, label in intents()]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    [line] = answer(path, models={"tiny": encoder})
    assert (len(rows) > 1000, line["rows"]) == (True, 1000)


def test_a_model_that_cannot_be_loaded_does_not_stop_the_others(tmp_path: Path, encoder: Path) -> None:
    write_intents(tmp_path)
    (tmp_path / "empty").mkdir()
    broken, whole = answer(tmp_path / "validation.csv", models={"broken": tmp_path / "empty", "whole": encoder})
    assert "broken could not be tried" in broken["failure"]
    assert whole["metrics"]["accuracy"] > 0


@pytest.mark.parametrize(
    ("labels", "error"),
    [(["a"] * 20, "1 labels in `label`"), ([""] * 20, "0 labels"), ([f"l{at}" for at in range(20)], "nearly every row")],
)
def test_rows_that_nothing_can_be_learned_from_are_refused_once(
    tmp_path: Path, encoder: Path, labels: list[str], error: str
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"text {at}", "label": label} for at, label in enumerate(labels)])
    [line] = answer(path, models={"one": encoder, "two": encoder})
    assert error in line["error"]


def test_a_column_that_is_not_there_is_told(tmp_path: Path, encoder: Path) -> None:
    write_intents(tmp_path)
    [line] = answer(tmp_path / "train.csv", models={"one": encoder}, columns={"text": "text", "label": "intent"})
    assert "'intent'" in line["error"]


def test_features_on_disk_are_of_one_tokenizer(tmp_path: Path) -> None:
    make_tiny_encoder(tmp_path / "encoder")
    write_intents(tmp_path, train=40)
    answer(tmp_path / "train.csv", models={"tiny": tmp_path / "encoder"})
    settings = json.loads((tmp_path / "encoder" / "tokenizer_config.json").read_text())
    (tmp_path / "encoder" / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    answer(tmp_path / "train.csv", models={"tiny": tmp_path / "encoder"})
    assert len(list((tmp_path / "cache").glob("*/facts.json"))) == 2


def test_words_are_tagged_by_the_features_of_their_first_tokens(tmp_path: Path, encoder: Path) -> None:
    rows = [{"tokens": words, "tags": tags} for words, tags in SENTENCES * 10]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert the_score(path, "token-classification", encoder, "f1", {"text": "tokens", "label": "tags"}) > 0.9


def test_a_decoder_that_knows_the_texts_needs_fewer_bits(tmp_path: Path, encoder: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "send money to a friend"}] * 5)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64))
    ids = tokenizer("send money to a friend", add_special_tokens=False, return_tensors="pt")["input_ids"]
    bits = []
    for name, steps in (("new", 0), ("trained", 30)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        bits.append(the_score(path, "causal-lm", tmp_path / name, "bits_per_byte", {"text": "text"}))
    untrained, trained = bits
    uniform = np.log2(len(tokenizer)) * 4 / len(" money to a friend".strip())  # the first of five tokens is free
    assert untrained == pytest.approx(uniform, rel=0.1)
    assert trained < untrained / 2


def test_an_encoder_decoder_is_measured_by_what_it_has_to_write(tmp_path: Path, encoder: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"source": "send money", "target": "transfer"}, {"source": "", "target": "x"}])
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    [line] = answer(path, "seq2seq", models={"t5": tmp_path / "t5"}, columns={"text": "source", "label": "target"})
    assert line["metrics"]["bits_per_byte"] > 0
    assert line["rows"] == 1


def test_images_are_told_apart_by_pooled_features(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 8, size=64) + (8 if at % 2 else 0) for at in range(60)]
    table = pa.table({"pixels": [image.tolist() for image in images], "label": [str(at % 2) for at in range(60)]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    columns = {"text": "pixels", "label": "label"}
    assert the_score(tmp_path / "rows.parquet", "image-classification", tmp_path / "vit", "accuracy", columns) > 0.9


def test_the_head_is_the_one_that_scikit_learn_finds() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(90, 5))
    labels = (features[:, 0] + random.normal(size=90) > 0).astype(int) + (features[:, 1] > 1)
    standard = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(standard, labels).predict_proba(standard)
    ours = fit_head(torch.tensor(features), torch.tensor(labels), 3)(torch.tensor(features)).softmax(-1)
    assert np.abs(ours.numpy() - theirs).max() < 1e-3


@pytest.mark.parametrize(("rows", "scored"), [(499, 499), (500, 100)])
def test_a_fifth_is_held_back_and_with_few_rows_every_row_once(rows: int, scored: int) -> None:
    features = [torch.rand(1, 2) for _ in range(rows)]
    found = [row for row, _ in held_back_logits(features, [[at % 5] for at in range(rows)], 5, seed=0)]
    assert (len(found), len(set(found))) == (scored, scored)
    counts = np.bincount([row % 5 for row in found])
    assert counts.max() - counts.min() <= 1
