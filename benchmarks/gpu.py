"""What a GPU makes of the trainers: `python -m benchmarks.gpu`.

Networks with random weights and made-up rows, so that it needs nothing but torch and transformers; ratios in one run.

`speed`: text classification with an encoder of BERT's size, in each number format, against `transformers.Trainer`. Seconds of
the last of several epochs, as the first ones warm up.
`share`: trials side by side in processes of their own on one GPU, with an encoder of MiniLM's size: reports a minute of all
of them together, and the memory that each one reports.
`compiled`: the encoder of BERT's size by `torch.compile`, against without: the first epoch and the last.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from benchmarks.hugging_face import text_classifier
from trainers.configs import TextClassificationConfig
from trainers.contract import TrialContext, make_trainer

_SIZES: Mapping[str, Mapping[str, int]] = {
    "bert": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}
_WORDS = 8000
_LABELS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=[*_MEASURES, "trial"], help="left out, all of them")
    parser.add_argument("--rows", type=int, default=4000, help="training rows (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="of each run (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.what == "trial":
        _trial(asked.folder, asked)
        return
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batches of {asked.batch_size}")
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        for name in [asked.what] if asked.what else _MEASURES:
            measure, size = _MEASURES[name]
            folder = Path(root) / name
            _write(folder, size, asked.rows)
            measure(folder, asked)


def speed(folder: Path, asked: argparse.Namespace) -> None:
    """Seconds of an epoch, with validation."""
    runs: Mapping[str, Callable[[], float]] = {
        "transformers.Trainer, fp32": partial(_theirs, folder, asked),
        "transformers.Trainer, bf16": partial(_theirs, folder, asked, bf16=True),
        "this project, fp32": partial(_ours, folder, asked, precision="fp32"),
        "this project (auto: bf16)": partial(_ours, folder, asked),
        "this project, fp16": partial(_ours, folder, asked, precision="fp16"),
    }
    found = {name: run() for name, run in runs.items()}
    plain = found["transformers.Trainer, bf16"]
    print(f"\nthe last of {asked.epochs} epochs over {asked.rows} rows, encoder of BERT's size")
    print(f"{'':30}{'s':>8}{'Trainer bf16 takes':>20}")
    for name, seconds in found.items():
        print(f"{name:30}{seconds:8.2f}{plain / seconds:19.2f}x")


def share(folder: Path, asked: argparse.Namespace) -> None:
    """Trials side by side."""
    print(f"\n{asked.epochs} epochs over {asked.rows} rows a trial, encoder of MiniLM's size")
    print(f"{'trials at once':>15}{'reports/min':>13}{'ratio':>8}{'MiB each':>10}")
    alone = None
    command = [sys.executable, "-m", "benchmarks.gpu", "trial", "--folder", str(folder), "--epochs", str(asked.epochs)]
    command += ["--batch-size", str(asked.batch_size)]
    for count in (1, 2, 4, 8):
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        for process in processes:  # each has loaded its model and made its rows ready
            assert process.stdout is not None  # noqa: S101
            process.stdout.readline()
        begun = time.perf_counter()
        for process in processes:
            assert process.stdin is not None  # noqa: S101
            process.stdin.write("go\n")
            process.stdin.flush()
        peaks = [json.loads(process.communicate()[0]) for process in processes]
        rate = 60 * count * asked.epochs / (time.perf_counter() - begun)
        alone = alone or rate
        print(f"{count:>15}{rate:>13.1f}{rate / alone:>7.2f}x{max(peaks) / 2**20:>10.0f}")


def compiled(folder: Path, asked: argparse.Namespace) -> None:
    """By `torch.compile`, which takes its time first."""
    plain, found = _seconds(folder, asked), _seconds(folder, asked, compile=True)
    print(f"\n{asked.epochs} epochs over {asked.rows} rows, encoder of BERT's size, bf16")
    print(f"{'':15}{'first s':>10}{'last s':>10}")
    print(f"{'plain':15}{plain[0]:>10.2f}{plain[-1]:>10.2f}")
    print(f"{'compiled':15}{found[0]:>10.2f}{found[-1]:>10.2f}")


_MEASURES: Mapping[str, tuple[Callable[[Path, argparse.Namespace], None], str]] = {
    "speed": (speed, "bert"),
    "share": (share, "minilm"),
    "compiled": (compiled, "bert"),
}


def _trial(folder: Path, asked: argparse.Namespace) -> None:
    """One trial in this process, which begins when it is told to."""
    trainer = make_trainer(_config(folder, asked), TrialContext(cache=folder / "cache", device="cuda"))
    print("ready", flush=True)
    sys.stdin.readline()
    peak = 0
    for report in trainer.reports():
        if report.gpu_memory is not None:
            peak = report.gpu_memory.peak_bytes
    print(peak, flush=True)


def _config(folder: Path, asked: argparse.Namespace, **changes: Any) -> TextClassificationConfig:
    document = {
        "kind": "text-classification",
        "model": str(folder / "model"),
        "data": {split: str(folder / f"{split}.csv") for split in ("train", "validation")},
        "epochs": asked.epochs,
        "batch_size": asked.batch_size,
        "learning_rate": 2e-5,
        "max_length": 128,
    }
    return TextClassificationConfig.model_validate({**document, **changes})


def _ours(folder: Path, asked: argparse.Namespace, **changes: Any) -> float:
    return _seconds(folder, asked, **changes)[-1]


def _seconds(folder: Path, asked: argparse.Namespace, **changes: Any) -> list[float]:
    """Of each epoch."""
    trainer = make_trainer(_config(folder, asked, **changes), TrialContext(cache=folder / "cache", device="cuda"))
    return [report.seconds for report in trainer.reports()]


def _theirs(folder: Path, asked: argparse.Namespace, *, bf16: bool = False) -> float:
    from transformers import TrainerCallback  # noqa: PLC0415

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.at = [0.0]

        def on_evaluate(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.at.append(time.perf_counter())

    clock = Clock()
    trainer = text_classifier(
        AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=_LABELS),
        AutoTokenizer.from_pretrained(folder / "model"),
        {split: [(text, int(label[1:])) for text, label in _read(folder / f"{split}.csv")] for split in ("train", "validation")},
        folder / "theirs",
        max_length=128,
        arguments={
            "num_train_epochs": asked.epochs,
            "per_device_train_batch_size": asked.batch_size,
            "learning_rate": 2e-5,
            "bf16": bf16,
        },
        callbacks=[clock],
    )
    trainer.train()
    return clock.at[-1] - clock.at[-2]


def _write(folder: Path, size: str, count: int) -> None:
    """A model of a size, and rows of 10 to 100 words, of which some tell the label."""
    (folder / "model").mkdir(parents=True)
    words = [f"w{number}" for number in range(_WORDS)]
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=30522, **_SIZES[size])).save_pretrained(folder / "model")
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder / "model")
    draw = random.Random(0)  # noqa: S311 - rows, not secrets
    for split, rows in (("train", count), ("validation", count // 8)):
        lines = ["text,label"]
        for row in range(rows):
            label = row % _LABELS
            drawn = [draw.choice(words[label::_LABELS] if draw.random() < 0.2 else words) for _ in range(draw.randint(10, 100))]
            lines.append(f"{' '.join(drawn)},l{label}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def _read(path: Path) -> Sequence[tuple[str, str]]:
    lines = path.read_text().splitlines()[1:]
    return [(text, label) for text, _, label in (line.rpartition(",") for line in lines)]


if __name__ == "__main__":
    main()
