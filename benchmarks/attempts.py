"""What a trial costs beyond its training: `python -m benchmarks.attempts`.

The same configurations of the same trainer on the same rows, two at a time, through the running service and through plain Ray
Tune (a function trainable with MLflowLoggerCallback, as its documentation has it). Both start with Ray up and Python's files
warm; the time is from the request to the last trial's end. The encoder is tiny, so that what is measured is not the training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.running import RunningService

_WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plain:
        print(json.dumps(run_plain(asked.plain, asked.trials, asked.epochs)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        ours = run_ours(Path(root), asked.trials, asked.epochs)
        command = [sys.executable, "-m", "benchmarks.attempts", f"--trials={asked.trials}", f"--epochs={asked.epochs}"]
        quiet = {"RAY_AIR_NEW_OUTPUT": "0", "PYTHONWARNINGS": "ignore", "RAY_DEDUP_LOGS": "0"}
        answer = subprocess.run(
            [*command, f"--plain={root}"], env={**os.environ, **quiet}, stdout=subprocess.PIPE, check=True, text=True
        )
        plain = json.loads(answer.stdout.splitlines()[-1])
    print(f"{asked.trials} trials of {asked.epochs} epochs, {_WORKERS} at a time")
    print(f"{'':12}{'whole s':>10}{'training s':>12}{'beyond it, s a trial':>22}")
    for name, found in (("tuneyard", ours), ("plain tune", plain)):
        beyond = (found["whole"] * _WORKERS - found["training"]) / asked.trials
        print(f"{name:12}{found['whole']:10.1f}{found['training']:12.1f}{beyond:22.2f}")
    print(f"plain tune takes {plain['whole'] / ours['whole']:.2f} times as long")


def learning_rates(trials: int) -> list[float]:
    return [1e-4 * 100 ** (number / max(1, trials - 1)) for number in range(trials)]


def run_ours(root: Path, trials: int, epochs: int) -> dict[str, float]:
    """A grid study on a service that is up: seconds from the POST to its end, and those spent training."""
    service = RunningService(root).start()
    try:
        with service.client() as client:
            for path in sorted(service.rows.glob("*.csv")):
                client.upload("intents", path)
            begun = time.perf_counter()
            study = client.wait(client.apply(_study(service.model, trials, epochs)).id, timeout=1000)
            whole = time.perf_counter() - begun
            if study.state != "completed":
                raise SystemExit(f"the study is {study.state}: {study.detail}")
            reports = [report for number in range(trials) for report in client.reports(study.id, number)]
            return {"whole": whole, "training": sum(report.seconds for report in reports)}
    finally:
        service.stop()


def _study(model: str, trials: int, epochs: int) -> dict[str, Any]:
    rates = learning_rates(trials)
    data = {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"}
    return {
        "name": "attempts",
        "trainer": {"kind": "text-classification", "model": model, "data": data, "epochs": epochs, "max_length": 32},
        "space": {"learning_rate": {"kind": "float", "low": rates[0] / 2, "high": rates[-1] * 2, "grid": rates}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "grid"},
        "resources": {"max_concurrent_trials": _WORKERS},
    }


def run_plain(root: Path, trials: int, epochs: int) -> dict[str, float]:
    """The same through Ray Tune alone, in this process."""
    import ray  # noqa: PLC0415 - only the child has it
    from ray import tune  # noqa: PLC0415
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415

    def train(config: dict[str, Any]) -> None:
        from trainers.configs import TextClassificationConfig  # noqa: PLC0415 - on the worker
        from trainers.contract import TrialContext, make_trainer  # noqa: PLC0415

        rows = {"train": str(root / "rows" / "train.csv"), "validation": str(root / "rows" / "validation.csv")}
        settings = {"kind": "text-classification", "model": str(root / "models" / "tiny"), "data": rows, "max_length": 32}
        asked = TextClassificationConfig.model_validate({**settings, "epochs": epochs, **config})
        trainer = make_trainer(asked, TrialContext(cache=root / "plain-cache"))
        for report in trainer.reports():
            with tempfile.TemporaryDirectory() as folder:
                trainer.export(Path(folder))
                tune.report(
                    {"accuracy": report.metrics["validation/accuracy"], "trained": report.seconds},
                    checkpoint=tune.Checkpoint.from_directory(folder),
                )

    os.environ["PYTHONPATH"] = str(Path.cwd())
    ray.init(address="local", num_cpus=_WORKERS, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{root}/plain.db", experiment_name="plain")
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"learning_rate": tune.grid_search(learning_rates(trials))},
        tune_config=tune.TuneConfig(max_concurrent_trials=_WORKERS),
        run_config=tune.RunConfig(storage_path=str(root / "plain"), verbose=0, callbacks=[callback]),
    )
    begun = time.perf_counter()
    results = tuner.fit()
    whole = time.perf_counter() - begun
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    trained = sum(float(result.metrics_dataframe["trained"].sum()) for result in results)
    ray.shutdown()
    return {"whole": whole, "training": trained}


if __name__ == "__main__":
    main()
