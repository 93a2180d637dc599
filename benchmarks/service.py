"""How fast the service is, beside what one would use in its place: `python -m benchmarks.service NAME`.

    instant      trials that take no time, with store, events, decisions and MLflow, beside bare Ray Tune that logs nothing
    first-step   from the POST of a study to its first training step, with a driver that waits and without one
    memory       what an idle service takes, and its drivers
    load         reads under load, with 2,000 studies and 100,000 trials in the store and a study running
    pull         one large checkpoint, beside `python -m http.server` for the same file
    watchers     50 clients that follow the events of one study
    clients      200 clients at once on PostgreSQL, each of which posts, watches, pauses, resumes and stops a study
    costs        what a trial and a report take of each process's time and of each table
    plain        a real study, beside a script of plain Ray Tune: needs rows and a model

Each starts a service of its own, and then its peer on the same machine. The trainer is `simulated`, which trains nothing, but for
`plain` and half of `first-step`.
"""

import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benchmarks.service_clients import clients
from benchmarks.service_costs import costs
from benchmarks.service_load import load, pull, watchers
from service.client import Client
from service.domain.ports import Store
from service.domain.trial import TrialState
from service.store.sql import open_store
from tests.running import RunningService, wait_until

_WORKERS = 2
_VALIDATION_ROWS = 200


@contextmanager
def a_service(**environment: str) -> Iterator[tuple[RunningService, Client]]:
    """A service of its own, with the settings that users have."""
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        settings = {"TUNEYARD_STANDBY": "true", "TUNEYARD_LEASE_SECONDS": "10", "TUNEYARD_HEARTBEAT_SECONDS": "2", **environment}
        service = RunningService(Path(root), **settings).start()
        try:
            with service.client() as client:
                if settings["TUNEYARD_STANDBY"] == "true":
                    _wait_for_driver(service, 0)
                yield service, client
        finally:
            service.stop()


def _wait_for_driver(service: RunningService, before: int) -> int:
    """Return once one more driver waits for a study than have waited `before`, and how many have by then."""
    log = service.home / "logs" / "standby.log"

    def waited() -> int:
        return log.read_text().count("waiting for a study") if log.exists() else 0

    wait_until(lambda: waited() > before, 120, "no driver waits")
    return waited()


def a_study(trials: int, strategy: Mapping[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
    """A study that trains nothing."""
    metrics = {"validation/loss": "(x - 0.3) ** 2 + (y - 0.6) ** 2"}
    axis = {"kind": "float", "low": 0.0, "high": 1.0}
    return {
        "name": "instant",
        "trainer": {"kind": "simulated", "metrics": metrics, "values": {"x": 0.5, "y": 0.5}, "epochs": 1, **trainer},
        "space": {"values.x": axis, "values.y": axis},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": strategy or {"kind": "random"},
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": _WORKERS},
    }


def instant(asked: argparse.Namespace) -> None:
    """Milliseconds a trial, from the POST to `completed` in the store, and how long the mirror takes after it."""
    strategy = {"kind": "random"} if asked.strategy == "random" else {"kind": "bayesian", "sampler": {"kind": asked.strategy}}
    rows = []
    with a_service() as (service, client):
        store = open_store(f"sqlite:///{service.home}/tuneyard.db")
        for trials in asked.trials:
            seconds, lag = _timed(client, store, a_study(trials, strategy))
            rows.append([f"tuneyard, {trials}", seconds, 1000 * seconds / trials, lag])
    bare = _peer("instant", f"--trials={asked.trials[0]}")
    rows.append([f"bare Ray Tune, {asked.trials[0]}", bare, 1000 * bare / asked.trials[0], 0.0])
    table(["", "seconds", "ms a trial", "mirror behind, s"], rows)
    print(f"{rows[0][1] / bare:.2f} times the bare one")


def _timed(client: Client, store: Store, document: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds from the POST to the study's end, and from there to the end of its mirroring."""
    begun = time.time()
    study = client.apply(document)
    wait_until(lambda: store.studies.get(study.id).state.is_end, 7200, "the study does not end")
    ended = _completed(client, study.id)
    wait_until(lambda: study.id not in store.mirror.behind(), 7200, "the mirror does not get there")
    return ended - begun, time.time() - ended


def _completed(client: Client, study_id: str) -> float:
    """When the study, all of whose trials have to be completed, ended."""
    study = client.study(study_id)
    if study.ended_at is None or study.trials != {"completed": sum(study.trials.values())}:
        raise SystemExit(f"the study is {study.state}, its trials {study.trials}: {study.detail}")
    return study.ended_at.timestamp()


def first_step(asked: argparse.Namespace) -> None:
    """Seconds from the POST to the beginning of the first report's training."""
    rows = []
    for standby in ("true", "false"):
        with a_service(TUNEYARD_STANDBY=standby) as (service, client):
            for path in sorted(service.rows.glob("*.csv")):
                client.upload("intents", path)
            waited = 0
            for name, document in (("simulated", a_study(1)), ("text-classification", _tiny_study(service.model))):
                if standby == "true":
                    waited = _wait_for_driver(service, waited)
                time.sleep(asked.idle)
                begun = time.time()
                study = client.wait(client.apply(document).id, timeout=300)
                report, [attempt] = client.reports(study.id, 0)[0], client.attempts(study.id, 0)
                began = report.at.timestamp() - report.seconds - begun
                rows.append(
                    [
                        f"{name}, {'with' if standby == 'true' else 'without'} standby",
                        attempt.started_at.timestamp() - begun,
                        began,
                    ]
                )
    table(["", "trial started, s", "first step, s"], rows)


def memory(_: argparse.Namespace) -> None:
    """Megabytes, with what processes share counted once."""
    with a_service(TUNEYARD_IDLE_SECONDS="40") as (service, client):
        idle = _megabytes(service)
        study = client.apply(a_study(1000, seconds_per_epoch=5))
        wait_until(lambda: client.study(study.id).trials.get(TrialState.RUNNING, 0), 100, "no trial runs")
        time.sleep(10)
        running = _megabytes(service)
        client.cancel(study.id)
        client.wait(study.id)
        wait_until(lambda: "--standby" not in _megabytes(service), 100, "the driver that waits is not let go")
        later = _megabytes(service)
    names = sorted({*idle, *running, *later}, key=lambda name: -max(each.get(name, 0.0) for each in (idle, running, later)))
    rows = [[name, *(each.get(name, 0.0) for each in (idle, running, later))] for name in names]
    table(
        ["", "idle", "a study runs", "idle for long"], [*rows, ["all", *(sum(each.values()) for each in (idle, running, later))]]
    )


def plain(asked: argparse.Namespace) -> None:
    """Seconds from the POST, or the call of `fit`, to the last trial's end: the same configurations, rows, epochs and workers."""
    draw = Random(7)  # noqa: S311 - a list of configurations
    configurations = [
        {"learning_rate": 10 ** draw.uniform(-4.3, -3.0), "batch_size": draw.choice([16, 32])} for _ in range(asked.trials)
    ]
    with tempfile.TemporaryDirectory() as folder:
        train, validation = _sampled(asked, Path(folder))
        listed = Path(folder) / "configurations.json"
        listed.write_text(json.dumps(configurations))
        with a_service(TUNEYARD_MODEL_ROOTS=json.dumps([str(asked.model.parent)])) as (_, client):
            for part in (train, validation):
                client.upload("rows", part)
            begun = time.time()
            ours = _completed(client, client.wait(client.apply(_real_study(asked, configurations)).id, timeout=3600).id) - begun
        files = [f"--train={train}", f"--validation={validation}", f"--configurations={listed}"]
        theirs = _peer("search", *files, *(f"--{name}={getattr(asked, name)}" for name in ("text", "label", "model", "epochs")))
    table(["", "seconds"], [["tuneyard", ours], ["plain Ray Tune", theirs]])
    print(f"{ours / theirs:.2f} of the time")


def _sampled(asked: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Files of rows drawn at random: those to train with, and those to measure on.

    What is measured has labels that are trained. Raises SystemExit where there are too few rows.
    """
    with asked.rows.open(newline="") as file:
        head, *lines = csv.reader(file)
    Random(0).shuffle(lines)  # noqa: S311 - files are often sorted by their labels
    label = head.index(asked.label)
    training, others = lines[: asked.train], lines[asked.train :]
    trained = {line[label] for line in training}
    validation = [line for line in others if line[label] in trained][:_VALIDATION_ROWS]
    if len(validation) < _VALIDATION_ROWS:
        raise SystemExit(f"{asked.rows} has too few rows: {asked.train} are trained with, {_VALIDATION_ROWS} measured on")
    files = folder / "train.csv", folder / "validation.csv"
    for path, part in zip(files, (training, validation), strict=True):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *part])
    return files


def _tiny_study(model: str) -> dict[str, Any]:
    data = {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"}
    return {
        "name": "tiny",
        "trainer": {"kind": "text-classification", "model": model, "data": data, "epochs": 1, "max_length": 32},
        "space": {"learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-3, "log": True}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "budget": {"trials": 1},
    }


def _real_study(asked: argparse.Namespace, configurations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    data = {"train": "dataset://rows/train.csv", "validation": "dataset://rows/validation.csv"}
    data |= {"text": asked.text, "label": asked.label}
    return {
        "name": "plain",
        "trainer": {"kind": "text-classification", "model": str(asked.model), "data": data, "epochs": asked.epochs},
        "space": {
            "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "batch_size": {"kind": "categorical", "choices": [16, 32]},
        },
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "initial": [dict(one) for one in configurations],
        "budget": {"trials": len(configurations)},
        "resources": {"max_concurrent_trials": _WORKERS},
    }


def _peer(*arguments: str) -> float:
    """Seconds that a script of plain Ray Tune took."""
    quiet = {"PYTHONWARNINGS": "ignore", "RAY_DEDUP_LOGS": "0"}
    command = [sys.executable, "-m", "benchmarks.plain_tune", f"--workers={_WORKERS}", *arguments]
    answer = subprocess.run(command, env={**os.environ, **quiet}, stdout=subprocess.PIPE, check=True, text=True)
    return float(json.loads(answer.stdout.splitlines()[-1])["seconds"])


def _megabytes(service: RunningService) -> dict[str, float]:
    """The proportional set size of the service's processes, by what they are."""
    found: dict[str, float] = {}
    for process in service.processes():
        with contextlib.suppress(psutil.Error):
            name = _name(process.cmdline())
            found[name] = found.get(name, 0.0) + process.memory_full_info().pss / 1e6
    return found


def _name(arguments: Sequence[str]) -> str:
    for argument in arguments:
        if argument.startswith("ray::"):
            return argument.partition(".")[0].strip()
        if "ray/" in argument or argument == "ray.scripts.scripts":
            return "Ray"
    words = [argument for argument in arguments if argument.startswith("service.")]
    return "--standby" if "--standby" in arguments else words[-1] if words else " ".join(arguments[:2])


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    width = max(len(str(row[0])) for row in rows) + 2
    print("".join([heads[0].ljust(width), *(head.rjust(max(18, len(head) + 2)) for head in heads[1:])]))
    for row in rows:
        cells = [f"{cell:.1f}".rjust(max(18, len(head) + 2)) for cell, head in zip(row[1:], heads[1:], strict=True)]
        print("".join([str(row[0]).ljust(width), *cells]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_subparsers(required=True, metavar="NAME")

    def command(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        found = names.add_parser(name, help=run.__doc__)
        found.set_defaults(run=run)
        return found

    of_instant = command("instant", instant)
    of_instant.add_argument("--trials", type=int, nargs="+", default=[1000], help="of one study after the other")
    of_instant.add_argument("--strategy", choices=["random", "tpe"], default="random")
    command("first-step", first_step).add_argument("--idle", type=float, default=20, help="seconds before each study")
    command("memory", memory)
    of_load = command("load", lambda asked: load(asked, a_service))
    of_load.add_argument("--studies", type=int, default=2000)
    of_load.add_argument("--trials", type=int, default=50, help="of each study")
    of_load.add_argument("--rate", type=int, default=100, help="requests a second")
    of_load.add_argument("--seconds", type=float, default=20)
    command("pull", lambda asked: pull(asked, a_service)).add_argument("--megabytes", type=int, default=1000)
    command("watchers", lambda asked: watchers(asked, a_service)).add_argument("--clients", type=int, default=50)
    of_clients = command("clients", lambda asked: clients(asked, a_service))
    of_clients.add_argument("--clients", type=int, default=200)
    of_clients.add_argument("--seconds", type=float, default=60, help="until the last study is told to stop")
    command("costs", lambda asked: costs(asked, a_service)).add_argument("--trials", type=int, default=300)
    of_plain = command("plain", plain)
    of_plain.add_argument("--rows", type=Path, required=True, help="a CSV file")
    of_plain.add_argument("--text", default="text")
    of_plain.add_argument("--label", default="label")
    of_plain.add_argument("--model", type=Path, required=True, help="the folder of a model")
    of_plain.add_argument("--train", type=int, default=160, help="rows to train with")
    of_plain.add_argument("--trials", type=int, default=12)
    of_plain.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    main()
