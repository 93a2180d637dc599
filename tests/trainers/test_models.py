"""Every encoder that a study may name: it gets a head, our dropout, adapters, layers that can be frozen, and is exported."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    GPT2Config,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from service.catalog.headers import ENCODERS, read_header
from tests.tiny import make_tiny_encoder
from tests.trainers.seq2seq_case import write_t5
from trainers.configs import TextClassificationConfig, TrainingConfig
from trainers.contract import TrainerError, TrialContext
from trainers.freezing import Freezing, layers_of
from trainers.models import (
    LoadedModel,
    add_adapters,
    check_length,
    export_model,
    export_tokenizer,
    folder_of,
    load_exported,
    load_model,
    load_tokenizer,
    measured_export,
)

_SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_RELATIVE = {**_SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
_OTHERWISE: dict[str, dict[str, Any]] = {
    "distilbert": {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 40},
    "albert": {**_SMALL, "embedding_size": 16},
    "deberta": {**_RELATIVE, "max_relative_positions": 8},
    "deberta-v2": {**_RELATIVE, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    "electra": {**_SMALL, "embedding_size": 16},
    "eurobert": {**_SMALL, **_SPECIAL, "num_key_value_heads": 2},
    "mobilebert": {**_SMALL, "embedding_size": 32, "intra_bottleneck_size": 16},
    "modernbert": {**_SMALL, **_SPECIAL, "cls_token_id": 1, "sep_token_id": 2},
    "rembert": {**_SMALL, "input_embedding_size": 16},
    "roformer": {**_SMALL, "embedding_size": 16},
    "squeezebert": {**_SMALL, "embedding_size": 32, "num_attention_heads": 4},
}
_LOOKS_AT_PADDING = {"convbert"}
"""Its convolutions do, so what it says of a text depends a little on the batch."""
_WITHOUT_LINEAR_LAYERS = {"ibert", "squeezebert"}
"""Theirs are quantised or convolutions, which peft gives no adapter by itself."""


def pretrained(model_type: str, folder: Path) -> None:
    config = CONFIG_MAPPING[model_type](**_OTHERWISE.get(model_type, _SMALL))
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def settings(**changes: Any) -> TrainingConfig:
    document = {"kind": "text-classification", "model": "owner/name", "data": {"train": "dataset://rows/train.csv"}}
    return TextClassificationConfig.model_validate({**document, **changes})


def load(folder: Path, labels: Sequence[str] = ("a", "b", "c"), **changes: Any) -> LoadedModel:
    head = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    return load_model(AutoModelForSequenceClassification, folder, settings(**changes), {**head, "pad_token_id": 0})


def outputs(model: Any) -> Tensor:
    """Logits of two texts, the second one padded."""
    ids, mask = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits


def train(model: Any, parameters: Sequence[tuple[str, Any]], steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([parameter for _, parameter in parameters], lr=1e-2)
    for _ in range(steps):
        outputs(model).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def changed(model: Any, before: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def copied(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder of each type."""
    folder = tmp_path_factory.mktemp(request.param)
    pretrained(request.param, folder)
    return folder


def type_of(folder: Path) -> str:
    model_type: str = json.loads((folder / "config.json").read_text())["model_type"]
    return model_type


def test_an_encoder_takes_a_head_and_our_dropout(encoder: Path) -> None:
    model = load(encoder, dropout=0.3).model
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} <= {0.0, 0.3}
    assert outputs(model).shape == (2, 3)


def test_an_encoders_output_does_not_depend_on_a_texts_neighbours(encoder: Path) -> None:
    model = load(encoder).model.eval()
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([[1, 7, 2]]), attention_mask=torch.tensor([[1, 1, 1]])).logits[0]
        padded = model(input_ids=torch.tensor([[1, 7, 2, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 0, 0]])).logits[0]
    assert torch.allclose(alone, padded, atol=1e-6) is (type_of(encoder) not in _LOOKS_AT_PADDING)


def test_an_encoders_frozen_layer_keeps_its_weights_and_gets_no_backward_pass(encoder: Path) -> None:
    model = load(encoder, frozen_layers=1).model
    freezing = Freezing(model, settings(frozen_layers=1))
    freezing.train()
    layer, made = layers_of(model)[0], []
    forward = layer.forward  # one type calls it by this name, which a hook would not notice

    def noted(*arguments: Any, **named: Any) -> Any:
        made.append(forward(*arguments, **named))
        return made[-1]

    layer.forward = noted
    before = copied(model)
    train(model, freezing.trained)
    answers = [made[0]] if isinstance(made[0], Tensor) else list(made[0].values() if isinstance(made[0], dict) else made[0])
    assert not any(answer.requires_grad for answer in answers if isinstance(answer, Tensor))
    assert not any(module.training for module in layer.modules())
    inside = {name for name, parameter in model.named_parameters() if any(parameter is one for one in layer.parameters())}
    moved = changed(model, before)
    assert inside
    assert not inside & moved
    assert not [name for name in moved if "word_embeddings" in name or "embed_tokens" in name]
    assert any("classifier" in name for name in moved)


def test_an_encoder_that_is_all_frozen_trains_its_head_alone(encoder: Path) -> None:
    loaded = load(encoder, frozen_layers="all")
    names = {name for name, _ in Freezing(loaded.model, settings(frozen_layers="all")).trained}
    assert set(loaded.new_parts) <= {name.rpartition(".")[0] for name in names}
    body = {name for name in names if name.startswith(f"{loaded.model.base_model_prefix}.") and "pooler" not in name}
    assert not body


@pytest.mark.parametrize("target_modules", ["auto", "all-linear"])
def test_an_encoder_with_adapters_is_exported_with_them_merged_in(encoder: Path, tmp_path: Path, target_modules: str) -> None:
    asked = settings(lora={"rank": 2, "target_modules": target_modules}, dropout=0.0)
    loaded = load(encoder, dropout=0.0)
    model = add_adapters(loaded, asked)
    freezing = Freezing(model, asked)
    before = copied(model)
    train(model, freezing.trained)
    moved = changed(model, before)
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    if type_of(encoder) not in _WITHOUT_LINEAR_LAYERS:
        assert [name for name in moved if "lora_B" in name and "classifier" not in name]
    export_model(model, asked, tmp_path)
    with torch.inference_mode():
        wanted, found = outputs(model.eval()), outputs(load_exported(AutoModelForSequenceClassification, tmp_path))
    assert torch.allclose(found, wanted, atol=1e-5)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/name"


def test_layers_come_from_the_input_on(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    model = load(tmp_path).model
    assert layers_of(model) == [model.bert.encoder.layer[0], model.bert.encoder.layer[1]]


def test_more_frozen_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    with pytest.raises(TrainerError, match="`frozen_layers` is 3, but BertForSequenceClassification has 2 layers: lower it"):
        Freezing(load(tmp_path).model, settings(frozen_layers=3))


def test_embeddings_can_be_frozen_alone(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    model = load(tmp_path).model
    names = {name for name, _ in Freezing(model, settings(freeze_embeddings=True)).trained}
    assert {name for name, _ in model.named_parameters()} - names == {
        name for name, _ in model.named_parameters() if ".embeddings." in name
    }


def test_attention_has_a_dropout_of_its_own_where_it_is_asked_for(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    config = load(tmp_path, dropout=0.3, attention_dropout=0.2).model.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.2)
    assert load(tmp_path, dropout=0.3).model.config.attention_probs_dropout_prob == 0.3


def test_a_head_for_other_labels_is_replaced(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)  # with transformers' usual two labels
    loaded = load(tmp_path, ["a", "b", "c", "d"])
    assert loaded.model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    assert loaded.model.classifier.weight.shape == (4, 32)
    assert loaded.new_parts == ("classifier",)


def test_a_head_that_fits_is_kept(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    one, other = (load(tmp_path, ["a", "b"], seed=seed) for seed in (1, 2))
    assert torch.equal(one.model.classifier.weight, other.model.classifier.weight)
    assert one.new_parts == ()


def test_a_weight_that_is_missing_from_the_pretrained_network_is_named(encoder: Path, tmp_path: Path) -> None:
    """A head is drawn by the seed, and so is a pooler; nothing else may be."""
    shutil.copytree(encoder, tmp_path / "model")
    weights = load_file(encoder / "model.safetensors")
    own = [name for name in weights if name.startswith(f"{load(encoder).model.base_model_prefix}.") and "pooler" not in name]
    save_file({name: tensor for name, tensor in weights.items() if name != own[-1]}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(TrainerError, match="The weights of model have no `"):
        load(tmp_path / "model")


def test_a_weight_of_another_shape_in_the_pretrained_network_is_named(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 60}))
    with pytest.raises(TrainerError, match=r"have no `bert\.embeddings\.word_embeddings\.weight` of the shape"):
        load(tmp_path)


def test_a_new_pooler_trains_with_the_head(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "pooler" not in name}, tmp_path / "model.safetensors")
    assert load(tmp_path, ["a", "b", "c", "d"]).new_parts == ("bert.pooler.dense", "classifier")


@pytest.mark.parametrize("part", ["decoder.block.1.layer.0.SelfAttention.q.weight", "shared.weight"])
def test_a_network_that_is_its_own_base_model_lacks_nothing_either(tmp_path: Path, part: str) -> None:
    write_t5(tmp_path / "t5")
    file = tmp_path / "t5" / "model.safetensors"
    weights = load_file(file)
    save_file({name: tensor for name, tensor in weights.items() if name != part}, file)
    with pytest.raises(TrainerError, match="The weights of t5 have no "):
        load_model(AutoModelForSeq2SeqLM, tmp_path / "t5", settings(), {})


@pytest.mark.parametrize("tied", [True, False])
def test_of_a_network_that_is_its_own_base_model_the_output_layer_trains_alone_unless_it_is_shared(
    tmp_path: Path, *, tied: bool
) -> None:
    write_t5(tmp_path / "t5")
    file = tmp_path / "t5" / "model.safetensors"
    weights = load_file(file)
    if not tied:
        save_file({**weights, "lm_head.weight": weights["shared.weight"] + 1}, file, metadata={"format": "pt"})
    model = load_model(AutoModelForSeq2SeqLM, tmp_path / "t5", settings(), {}).model
    if tied:
        with pytest.raises(TrainerError, match="the model has no head with weights of its own"):
            Freezing(model, settings(frozen_layers="all"))
    else:
        assert [name for name, _ in Freezing(model, settings(frozen_layers="all")).trained] == ["lm_head.weight"]


@pytest.mark.parametrize(("model_type", "longest"), [("bert", 40), ("roberta", 39), ("camembert", 39), ("xlm-roberta", 39)])
def test_more_tokens_than_a_model_has_positions_for_are_refused(tmp_path: Path, model_type: str, longest: int) -> None:
    pretrained(model_type, tmp_path)
    model = load(tmp_path).model.eval()
    assert model(input_ids=torch.full((1, longest), 5)).logits.shape == (1, 3)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))
    check_length("max_length", longest, model.config)
    with pytest.raises(TrainerError, match=f"`max_length` is {longest + 1}, but the model has {longest} positions: lower it"):
        check_length("max_length", longest + 1, model.config)


def test_a_length_is_checked_as_the_catalogue_says_it(encoder: Path) -> None:
    (encoder / "tokenizer.json").touch()
    longest = read_header("encoder", encoder).longest
    assert longest is not None
    config = load_model(AutoModelForSequenceClassification, encoder, settings(), {}).model.config
    check_length("max_length", longest, config)
    with pytest.raises(TrainerError, match=f"{longest} positions"):
        check_length("max_length", longest + 1, config)


def test_relative_positions_are_of_any_length(tmp_path: Path) -> None:
    write_t5(tmp_path / "t5")
    check_length("max_length", 100_000, load_model(AutoModelForSeq2SeqLM, tmp_path / "t5", settings(), {}).model.config)


def test_an_export_is_measured_on_the_cpu_where_the_device_is_full(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")

    def measure(model: Any) -> list[float]:
        if model.device.type != "cpu":
            raise error
        found: list[float] = outputs(model).flatten().tolist()
        return found

    def measured(device: str) -> list[float]:
        return measured_export(AutoModelForSequenceClassification, tmp_path, torch.device(device), measure)

    assert measured("meta") == measured("cpu")
    error = TrainerError("out_of_memory", "Not even one validation row fits into the memory of the device.")
    assert measured("meta") == measured("cpu")
    error = RuntimeError("a wrong shape")
    with pytest.raises(RuntimeError, match="a wrong shape"):
        measured("meta")


def test_the_head_comes_from_the_seed(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    heads = [load(tmp_path, seed=seed).model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_random_weights_come_from_the_seed_and_need_only_a_configuration(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    loaded = [load(tmp_path, initialisation="random", seed=seed) for seed in (1, 1, 2)]
    first, same, other = (one.model.bert.embeddings.word_embeddings.weight for one in loaded)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert loaded[0].new_parts == ()


def test_a_layer_that_is_not_there_gets_no_adapter(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    asked = settings(lora={"target_modules": ("q_proj",)})
    with pytest.raises(TrainerError, match=r"`lora\.target_modules` does not fit bert"):
        add_adapters(load(tmp_path), asked)


def test_a_head_that_shares_its_weights_is_frozen_adapted_and_exported_with_them(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=40, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)

    def loaded(**changes: Any) -> Any:
        return load_model(AutoModelForCausalLM, tmp_path, settings(**changes), {})

    with pytest.raises(TrainerError, match="the model has no head with weights of its own"):
        Freezing(loaded().model, settings(frozen_layers="all"))
    names = {name for name, _ in Freezing(loaded().model, settings(frozen_layers=1)).trained}
    assert {name.split(".")[1] for name in names} == {"h", "ln_f"}
    asked = settings(lora={"rank": 2}, dropout=0.0)
    model = add_adapters(loaded(dropout=0.0), asked)
    train(model, Freezing(model, asked).trained)
    (tmp_path / "export").mkdir()
    export_model(model, asked, tmp_path / "export")
    found = load_exported(AutoModelForCausalLM, tmp_path / "export")
    with torch.inference_mode():
        assert torch.allclose(outputs(found), outputs(model.eval()), atol=1e-5)
    assert found.lm_head.weight is found.transformer.wte.weight


def test_an_exported_tokenizer_cuts_where_training_did_and_is_text_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    make_tiny_encoder(tmp_path / "tiny")
    (tmp_path / "export").mkdir()
    export_tokenizer(load_tokenizer(tmp_path / "tiny"), 8, tmp_path / "export")
    assert load_tokenizer(tmp_path / "export").model_max_length == 8
    assert {path.suffix for path in (tmp_path / "export").iterdir()} <= {".json", ".txt", ".jinja"}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="There is no folder for the model 'owner/name'"):
        folder_of(settings(), TrialContext(cache=tmp_path))


def test_a_model_without_such_a_head_is_refused(tmp_path: Path) -> None:
    CONFIG_MAPPING["vit"]().save_pretrained(tmp_path)
    with pytest.raises(TrainerError, match="cannot be loaded for SequenceClassification"):
        load(tmp_path)


def test_weights_that_are_a_pickle_are_not_read(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load(tmp_path)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load(tmp_path)
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "was-run").exists()
