"""Scripts of plain Ray Tune, such as one would write without a service: peers of `benchmarks.service`, each a process of its own.

    python -m benchmarks.plain_tune instant --trials 1000
    python -m benchmarks.plain_tune search --train train.csv --validation validation.csv --model MODEL --configurations FILE

Both print one line of JSON: the seconds from the call of `fit` to its end, with Ray up before.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune


class Instant(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """A trial that takes no time, in an actor that goes from trial to trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        return {"loss": self._config["x"], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


def instant(asked: argparse.Namespace, folder: str) -> float:
    """Trials that take no time, with reused actors and nothing logged."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    tuner = tune.Tuner(
        tune.with_resources(Instant, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=asked.trials, reuse_actors=True, max_concurrent_trials=asked.workers),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    return _timed(tuner)


def search(asked: argparse.Namespace, folder: str) -> float:
    """A function trainable, Optuna's search and the MLflow callback, on a list of configurations."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415 - what the other one does not need
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    configurations = json.loads(asked.configurations.read_text())
    space = {"learning_rate": tune.loguniform(1e-5, 1e-2), "batch_size": tune.choice([16, 32])}
    fixed = {name: str(getattr(asked, name)) for name in ("train", "validation", "text", "label", "model")}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_train, fixed=fixed, epochs=asked.epochs), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=len(configurations), max_concurrent_trials=asked.workers,
            search_alg=OptunaSearch(points_to_evaluate=configurations),
        ),
        run_config=tune.RunConfig(
            storage_path=folder, verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="plain")],
        ),
    )  # fmt: skip
    return _timed(tuner)


def _train(config: dict[str, Any], fixed: dict[str, str], epochs: int) -> None:
    import torch  # noqa: PLC0415 - on the worker
    from torch.utils.data import DataLoader  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = []
    for name in ("train", "validation"):
        with Path(fixed[name]).open(newline="") as file:
            parts.append(list(csv.DictReader(file)))
    train, measured = parts
    labels = {name: place for place, name in enumerate(sorted({row[fixed["label"]] for row in train}))}
    tokenizer = AutoTokenizer.from_pretrained(fixed["model"])
    model = AutoModelForSequenceClassification.from_pretrained(fixed["model"], num_labels=len(labels))

    def prepared(part: list[dict[str, str]]) -> list[dict[str, Any]]:
        texts = tokenizer([row[fixed["text"]] for row in part], truncation=True, max_length=128)
        return [
            {**{key: texts[key][place] for key in texts}, "labels": labels[row[fixed["label"]]]} for place, row in enumerate(part)
        ]

    collate = DataCollatorWithPadding(tokenizer)
    training: DataLoader[Any] = DataLoader(  # a list of rows is as good as a data set
        prepared(train), batch_size=config["batch_size"], shuffle=True, collate_fn=collate  # type: ignore[arg-type]
    )  # fmt: skip
    validation: DataLoader[Any] = DataLoader(prepared(measured), batch_size=64, collate_fn=collate)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"])
    for _ in range(epochs):
        model.train()
        for batch in training:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(**batch).logits.argmax(-1) == batch["labels"]).sum()) for batch in validation)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tune.report({"accuracy": right / len(measured)}, checkpoint=tune.Checkpoint.from_directory(folder))


def _timed(tuner: tune.Tuner) -> float:
    begun = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - begun
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    names = parser.add_subparsers(required=True, metavar="NAME")
    of_instant = names.add_parser("instant")
    of_instant.add_argument("--trials", type=int, default=1000)
    of_instant.set_defaults(run=instant)
    of_search = names.add_parser("search")
    of_search.add_argument("--train", type=Path, required=True, help="a CSV file")
    of_search.add_argument("--validation", type=Path, required=True, help="another one, whose labels are all in `train`")
    of_search.add_argument("--text", default="text")
    of_search.add_argument("--label", default="label")
    of_search.add_argument("--model", required=True)
    of_search.add_argument("--configurations", type=Path, required=True)
    of_search.add_argument("--epochs", type=int, default=2)
    of_search.set_defaults(run=search)
    asked = parser.parse_args()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["PYTHONPATH"] = str(Path.cwd())
    with tempfile.TemporaryDirectory(prefix="plain-") as folder:
        ray.init(address="local", num_cpus=asked.workers, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        print(json.dumps({"seconds": asked.run(asked, folder)}))
        ray.shutdown()


if __name__ == "__main__":
    main()
