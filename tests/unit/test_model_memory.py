"""The estimate of memory against what autograd really keeps."""

from collections.abc import Mapping

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import BertConfig, BertForSequenceClassification

from service.domain.base_models import ModelHeader
from service.domain.memory import memory_need

MINILM: Mapping[str, int] = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 1000,
}  # fmt: skip


def header_of(model: torch.nn.Module) -> ModelHeader:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelHeader("bert", frozenset({"text-classification"}), layers=6, hidden_size=384, heads=12, parameters=parameters)


def kept_bytes(model: torch.nn.Module, rows: int, tokens: int) -> int:
    """What a forward pass keeps for the backward pass, without the weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(5, 1000, (rows, tokens))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(rows, dtype=torch.long)).loss
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(("rows", "tokens"), [(4, 32), (4, 128), (1, 256)])
def test_activations_of_an_encoder_are_what_autograd_keeps(rows: int, tokens: int) -> None:
    model = BertForSequenceClassification(BertConfig(**MINILM)).train()
    need = memory_need(header_of(model), batch_size=rows, max_length=tokens, method="full")
    assert need is not None
    assert need.activations == pytest.approx(kept_bytes(model, rows, tokens), rel=0.03)


def test_weights_gradients_and_moments_are_four_bytes_each() -> None:
    header = ModelHeader("bert", frozenset(), layers=1, hidden_size=8, heads=1, parameters=1000)
    need = memory_need(header, batch_size=1, max_length=1, method="full")
    assert need is not None
    assert (need.weights, need.gradients, need.optimizer) == (4000, 4000, 8000)


def test_what_is_not_known_is_not_made_up() -> None:
    assert memory_need(ModelHeader("bert", frozenset()), batch_size=1, max_length=1, method="full") is None
    need = memory_need(ModelHeader("x", frozenset(), parameters=1), batch_size=1, max_length=1, method="lora")
    assert need is not None
    assert (need.activations, need.total) == (None, None)


def test_a_vocabulary_counts_where_text_is_written() -> None:
    encoder = ModelHeader("bert", frozenset(), layers=1, hidden_size=8, heads=1, vocabulary=50_000, parameters=1)
    decoder = ModelHeader("gpt2", frozenset({"causal-lm"}), layers=1, hidden_size=8, heads=1, vocabulary=50_000, parameters=1)
    kept = [memory_need(one, batch_size=2, max_length=10, method="full") for one in (encoder, decoder)]
    assert kept[0] is not None
    assert kept[1] is not None
    assert (kept[1].activations or 0) - (kept[0].activations or 0) == 4 * 2 * 10 * 50_000 * 2


def test_images_count_by_what_the_layers_put_out() -> None:
    header = ModelHeader("vit", frozenset({"image-classification"}), image_values=1000, parameters=1)
    need = memory_need(header, batch_size=3, max_length=128, method="full")
    assert need is not None
    assert need.activations == 4 * 3 * 1000 * 19
