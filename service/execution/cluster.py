"""Ray from a driver's side: join the cluster, run one fit of Tune."""

import shutil
from pathlib import Path

import ray
from ray import tune

from service.execution.ledger import Ledger
from service.execution.searcher import LedgerScheduler, LedgerSearcher
from service.execution.trainable import AttemptTrainable


def join(address: str) -> None:
    """Connect this process, which must be on a node of the cluster and have `environment.for_driver` set."""
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)


def run_attempts(ledger: Ledger, folder: Path) -> None:
    """One fit of Tune: attempts run until nothing may start and nothing runs. `folder` is Tune's own and is deleted."""
    resources = ledger.study.definition.resources
    study_id = ledger.study.id
    trainable = tune.with_resources(AttemptTrainable, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial})
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(study_id),
            scheduler=LedgerScheduler(study_id),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"attempt-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=study_id, storage_path=str(folder), verbose=0, failure_config=tune.FailureConfig(max_failures=0)
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
