"""Every encoder that a study may name: it gets a head for our labels, our dropout, and layers that can be frozen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from service.catalog.models import ENCODERS
from trainers.contract import TrainerError
from trainers.models import encoder_layers, freeze_layers, load_classifier, load_tokenizer

_SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_OTHERWISE: dict[str, dict[str, Any]] = {
    "distilbert": {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 40},
    "albert": {**_SMALL, "embedding_size": 16},
    "electra": {**_SMALL, "embedding_size": 16},
    "squeezebert": {**_SMALL, "embedding_size": 32, "num_attention_heads": 4},
    "modernbert": {**_SMALL, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}


def pretrained(model_type: str, folder: Path) -> None:
    config = CONFIG_MAPPING[model_type](**_OTHERWISE.get(model_type, _SMALL))
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize("model_type", sorted(ENCODERS))
def test_an_encoder_takes_a_head_dropout_and_frozen_layers(model_type: str, tmp_path: Path) -> None:
    pretrained(model_type, tmp_path)
    model = load_classifier(tmp_path, ["a", "b", "c"], dropout=0.3)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} <= {0.0, 0.3}
    outputs = model(
        input_ids=torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]), attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    )
    assert outputs.logits.shape == (2, 3)
    outputs.logits.sum().backward()
    model.eval()
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([[1, 7, 2]]), attention_mask=torch.tensor([[1, 1, 1]])).logits[0]
        padded = model(input_ids=torch.tensor([[1, 7, 2, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 0, 0]])).logits[0]
    assert torch.allclose(alone, padded, atol=1e-6), "what is reported would depend on a text's neighbours"
    freeze_layers(model, 1)
    assert not any(parameter.requires_grad for parameter in encoder_layers(model)[0].parameters())
    assert not any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_a_head_for_other_labels_is_replaced(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)  # with transformers' usual two labels
    model = load_classifier(tmp_path, ["a", "b", "c", "d"], dropout=0.1)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    assert model.classifier.weight.shape == (4, 32)


def test_the_head_comes_from_the_random_state(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load_classifier(tmp_path, ["a", "b", "c"], dropout=0.1).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_weights_that_are_a_pickle_are_not_read(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_classifier(tmp_path, ["a", "b"], dropout=0.1)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_classifier(tmp_path, ["a", "b"], dropout=0.1)
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "was-run").exists()
