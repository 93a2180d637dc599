"""Pretrained models with the head of a task: loading, adapters, export."""

import logging
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from trainers.configs import Lora, TrainingConfig
from trainers.contract import TrainerError, TrialContext
from trainers.freezing import in_backbone
from trainers.hardware import is_out_of_memory

T = TypeVar("T")

_DROPOUTS = frozenset(
    {
        "hidden_dropout_prob", "classifier_dropout", "classifier_dropout_prob", "hidden_dropout", "embedding_dropout",
        "mlp_dropout", "dropout", "dropout_rate", "seq_classif_dropout", "pooler_dropout", "summary_last_dropout", "cls_dropout",
        "resid_pdrop", "embd_pdrop", "resid_dropout", "embed_dropout", "summary_first_dropout",
    }
)  # fmt: skip
"""What the models of transformers call their dropout probabilities."""

_ATTENTION_DROPOUTS = frozenset({"attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"})

_POSITIONS_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"}
)
"""These count positions from the padding token's number on, so the first ones are never used."""

_ANY_LENGTH = frozenset({"t5", "mt5", "umt5", "longt5", "bloom"})
"""Their positions are relative; what their configurations say of a length is that of pretraining."""

_EXPORTED = frozenset({".safetensors", ".json", ".txt"})

# A new head is what fine-tuning starts from, and progress bars of one file are noise in a worker's log.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@dataclass(frozen=True)
class LoadedModel:
    """A model in fp32, and the names of its parts that were not in the pretrained weights."""

    model: Any
    new_parts: tuple[str, ...]


def folder_of(settings: TrainingConfig, context: TrialContext) -> Path:
    """Where the base model is. Raises TrainerError."""
    folder = context.models.get(settings.model, Path(settings.model))
    if not folder.is_dir():
        raise TrainerError("trainer_error", f"There is no folder for the model {settings.model!r}: name one that is there.")
    return folder


def load_tokenizer(folder: Path, **options: Any) -> Any:
    """The tokenizer of a pretrained model. Raises TrainerError."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError("trainer_error", f"The tokenizer of {folder.name} cannot be loaded: {error}") from error


def load_config(folder: Path, settings: TrainingConfig, changes: Mapping[str, Any]) -> Any:
    """The model's configuration with dropout set wherever the architecture has one, and with the task's `changes`."""
    attention = settings.dropout if settings.attention_dropout is None else settings.attention_dropout
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError("trainer_error", f"The configuration of {folder.name} cannot be loaded: {error}") from error
    for names, value in ((_DROPOUTS, settings.dropout), (_ATTENTION_DROPOUTS, attention)):
        for name in names & set(config.to_dict()):
            setattr(config, name, value)
    for name, change in changes.items():
        setattr(config, name, change)
    return config


def load_model(architecture: Any, folder: Path, settings: TrainingConfig, changes: Mapping[str, Any]) -> LoadedModel:
    """The model with the head that `architecture` (an `AutoModelFor...`) gives it, in fp32.

    What is new comes from `settings.seed`: the head, or with `initialisation: random` everything. In a warm process it takes
    30 ms for 23 M parameters, as the weights are mapped and not copied. Raises TrainerError for a model that has no such head,
    or not all of its pretrained weights.
    """
    config = load_config(folder, settings, changes)
    torch.manual_seed(settings.seed)
    try:
        if settings.initialisation == "random":
            return LoadedModel(architecture.from_config(config, dtype=torch.float32), ())
        model, loading = architecture.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        task = architecture.__name__.removeprefix("AutoModelFor")
        raise TrainerError("trainer_error", f"The model {folder.name} cannot be loaded for {task}: {error}") from error
    new = sorted({*loading["missing_keys"], *(str(key[0]) for key in loading.get("mismatched_keys", ()))})
    lacking = [name for name in new if in_backbone(model, name)]
    if lacking:
        detail = f"The weights of {folder.name} have no `{lacking[0]}` of the shape that its configuration says"
        raise TrainerError("trainer_error", f"{detail}: download the model again, or name another.")
    return LoadedModel(model, tuple(sorted({name.rpartition(".")[0] for name in new} - {""})))


def check_length(name: str, length: int, config: Any) -> None:
    """Raises TrainerError when the setting `name` is more tokens than a model with this configuration has positions for."""
    longest = _longest(config)
    if longest is not None and length > longest:
        detail = f"`{name}` is {length}, but the model has {longest} positions: lower it."
        raise TrainerError("trainer_error", detail)


def measured_export(architecture: Any, folder: Path, device: torch.device, measure: Callable[[Any], T]) -> T:
    """What `measure` finds of an exported model on the device, or on the CPU where memory is short beside the trained one."""
    try:
        return measure(load_exported(architecture, folder).to(device))
    except Exception as error:
        is_full = is_out_of_memory(error) or (isinstance(error, TrainerError) and error.reason == "out_of_memory")
        if not is_full or device.type == "cpu":
            raise
    torch.cuda.empty_cache()  # here the error's traceback holds no activations any more
    return measure(load_exported(architecture, folder))


def load_exported(architecture: Any, folder: Path) -> Any:
    """A model as `export` wrote it, in fp32 and in evaluation mode."""
    model = architecture.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def add_adapters(loaded: LoadedModel, settings: TrainingConfig) -> Any:
    """The model with low-rank adapters where `settings.lora` asks for them: they and its new parts train, nothing else.

    Raises TrainerError when the model has no such layers.
    """
    if settings.lora is None:
        return loaded.model
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - a second that only trials with adapters pay

    lora = settings.lora
    wanted = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides by the rank, so a fraction will do
        lora_dropout=lora.dropout,
        target_modules=_adapted(loaded.model.config.model_type, lora),
        modules_to_save=list(loaded.new_parts) or None,
        # peft keeps whatever has a name that ends as theirs, and nothing can be kept and adapted.
        exclude_modules=f".*({'|'.join(map(re.escape, loaded.new_parts))})" if loaded.new_parts else None,
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers for something by its old name, and sees by itself which weights of GPT-2 are transposed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
            # Merged, the weights would no longer be the same, and whoever loads them may make them so again.
            warnings.filterwarnings("error", "Model has `tie_word_embeddings=True` and a tied layer", UserWarning)
            return get_peft_model(loaded.model, wanted)
    except UserWarning as error:
        detail = "`lora.target_modules` names the embeddings or the output layer, which share their weights: leave them out."
        raise TrainerError("trainer_error", detail) from error
    except ValueError as error:
        raise TrainerError(
            "trainer_error", f"`lora.target_modules` does not fit {loaded.model.config.model_type}: {error}"
        ) from error


def export_model(model: Any, settings: TrainingConfig, folder: Path) -> None:
    """Write weights and configuration so that `from_pretrained(folder)` loads them; no pickle.

    With adapters, `folder` holds the weights with them merged in, and `folder/adapter` the adapters alone, for peft.
    """
    if settings.lora is None:
        model.save_pretrained(folder)
        return
    base = model.get_base_model()
    base.save_pretrained(folder, state_dict=_merged(base))
    model.peft_config["default"].base_model_name_or_path = settings.model  # and not where it lies on this machine
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)  # "auto" would ask the hub about the base model
    for path in (folder / "adapter").iterdir():
        if path.suffix not in _EXPORTED:
            path.unlink()


def exported_bytes(model: Any, settings: TrainingConfig) -> int:
    """Bytes of the weights that `export_model` writes for `from_pretrained`: those of parts that share them once."""
    state = model.state_dict() if settings.lora is None else _merged(model.get_base_model())
    tensors = {(tensor.data_ptr(), tensor.shape): tensor.numel() * tensor.element_size() for tensor in state.values()}
    return sum(tensors.values())


def export_tokenizer(tokenizer: Any, max_length: int, folder: Path) -> None:
    """Write the tokenizer so that `from_pretrained(folder)` loads it."""
    tokenizer.model_max_length = max_length  # who predicts with it cuts where training cut
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # a chat template goes into its configuration
    if (folder / "tokenizer.json").is_file():
        # It holds everything; the older formats beside it may be binary.
        for path in [path for path in folder.iterdir() if path.is_file() and path.suffix not in _EXPORTED]:
            path.unlink()


def _longest(config: Any) -> int | None:
    """Most tokens of a text that a model has positions for; None where any number will do."""
    if config.model_type in _ANY_LENGTH:
        return None
    found = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    positions = next((number for number in found if isinstance(number, int)), None)
    if positions is None or positions < 1:  # some with relative positions say -1
        return None
    if config.model_type in _POSITIONS_AFTER_PADDING:
        return positions - (1 if config.pad_token_id is None else config.pad_token_id) - 1
    return positions


def _adapted(model_type: str, lora: Lora) -> Any:
    """The layers that get an adapter, as peft wants them named."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL  # noqa: PLC0415 - see `add_adapters`

    if lora.target_modules == "auto":
        return None if model_type in USUAL else "all-linear"
    return list(lora.target_modules) if isinstance(lora.target_modules, tuple) else lora.target_modules


def _merged(base: Any) -> dict[str, torch.Tensor]:
    """The weights under their usual names with adapters added.

    Merging in place and back, as peft does, would change the weights by rounding, and a trial would no longer resume bit for bit.
    """
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415 - see `add_adapters`
    from peft.utils import ModulesToSaveWrapper  # noqa: PLC0415 - the same

    merged: dict[str, torch.Tensor] = {}
    replaced = set[str]()
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module.get_base_layer()
            delta: Any = module.get_delta_weight("default")  # type: ignore[attr-defined]  # of each kind of layer there is
            merged[f"{name}.weight"] = (layer.weight + delta).detach()
            if getattr(layer, "bias", None) is not None:
                merged[f"{name}.bias"] = layer.bias.detach()
            replaced.add(f"{name}.")
        elif isinstance(module, ModulesToSaveWrapper):
            trained: Any = module.modules_to_save
            merged |= {f"{name}.{key}": value for key, value in trained["default"].state_dict().items()}
            replaced.add(f"{name}.")
    untouched = {key: value for key, value in base.state_dict().items() if not key.startswith(tuple(replaced))}
    return {**untouched, **merged}
