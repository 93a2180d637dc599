"""What is exported of a trial with adapters: alone for peft, and merged for everybody else."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from tests.trainers import causal_lm_case, seq2seq_case
from tests.trainers.cases import CASES, Case, a_trainer
from trainers.contract import TrainerError

_ARCHITECTURES: dict[str, Any] = {
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "causal-lm": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "image-classification": AutoModelForImageClassification,
}
_TIED = Case("causal-lm-tied", causal_lm_case.write, causal_lm_case.LORA_CASE[1], *causal_lm_case.LORA_CASE[2:])
_TRANSPOSED = Case(
    "gpt2", causal_lm_case.write_plain, {**causal_lm_case.PLAIN_DOCUMENT, "lora": {"rank": 4}}, *causal_lm_case.PLAIN_CASE[2:]
)
_T5 = Case("t5", seq2seq_case.write, seq2seq_case.LORA_CASE[1], *seq2seq_case.LORA_CASE[2:])
_WITH_ADAPTERS = [*(case for case in CASES if "lora" in case.document), _TIED, _TRANSPOSED, _T5]


def by_name(case: Case) -> str:
    return case.name


# peft asks transformers for something by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("case", _WITH_ADAPTERS, ids=by_name)
def test_adapters_on_the_base_model_are_as_good_as_the_merged_export(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    trainer = a_trainer(case, tmp_path, epochs=1)
    report = list(trainer.reports())[-1]
    exported, again = tmp_path / "export", tmp_path / "again"
    exported.mkdir()
    trainer.export(exported)
    architecture = _ARCHITECTURES[case.document["kind"]]
    base = architecture.from_pretrained(
        tmp_path / "tiny", config=AutoConfig.from_pretrained(exported), ignore_mismatched_sizes=True
    )
    model: Any = PeftModel.from_pretrained(base, exported / "adapter")
    shutil.copytree(exported, again, ignore=shutil.ignore_patterns("adapter", "*.safetensors"))
    model.merge_and_unload().save_pretrained(again)
    for name, merged in case.measure(exported, tmp_path, "validation").items():
        assert report.metrics[f"validation/{name}"] == pytest.approx(merged, abs=1e-5), name
        assert case.measure(again, tmp_path, "validation")[name] == pytest.approx(merged, abs=1e-5), name


def test_adapters_are_all_that_trains_of_a_language_model(tmp_path: Path) -> None:
    causal_lm_case.write(tmp_path)
    trainer = a_trainer(_TIED, tmp_path)
    trained = [name for name, parameter in trainer._model.named_parameters() if parameter.requires_grad]  # type: ignore[attr-defined]
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_weights_that_two_layers_share_get_no_adapter(name: str, tmp_path: Path) -> None:
    causal_lm_case.write(tmp_path)
    with pytest.raises(TrainerError, match=r"`lora.target_modules` names the embeddings or the output layer"):
        a_trainer(_TIED, tmp_path, lora={"target_modules": ("q_proj", name)})


def test_layers_that_the_model_does_not_have_are_named(tmp_path: Path) -> None:
    causal_lm_case.write(tmp_path)
    with pytest.raises(TrainerError, match=r"`lora.target_modules` does not fit llama: .*nothing"):
        a_trainer(_TIED, tmp_path, lora={"target_modules": ("nothing",)})
