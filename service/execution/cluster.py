"""Ray from a driver's side: join the cluster, run one fit of Tune."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache

from service.domain.definition import Resources
from service.execution.ledger import Ledger
from service.execution.searcher import LedgerScheduler, LedgerSearcher
from service.execution.trainable import AttemptTrainable

_CREDENTIALS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"})
"""Tune would hand them on from the driver to its workers, by a way that writes them into Ray's logs."""


def join(address: str) -> None:
    """Connect this process, which must be on a node of the cluster and have `environment.for_driver` set."""
    if not ray.is_initialized():
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)


def run_attempts(ledger: Ledger, folder: Path, barred: frozenset[str]) -> None:
    """One fit of Tune: attempts run until nothing may start and nothing runs. `folder` is Tune's own and is deleted.

    None of them runs on a node that is `barred`.
    """
    resources = ledger.study.resources
    study_id = ledger.study.id
    # Tune reads it at the start of a fit, and the study's slots may grow up to there meanwhile.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_CREDENTIALS)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.max_concurrent_trials)
    trainable = tune.with_resources(AttemptTrainable, _placement(resources, barred))
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
            name=study_id,
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # else each attempt waits for one that is not used
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _placement(resources: Resources, barred: frozenset[str]) -> tune.PlacementGroupFactory:
    """What a trial holds, and the nodes that it must not be on."""
    bundle = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus}
    closed = closed_nodes(ray.nodes(), bundle, barred)
    if not closed:
        return tune.PlacementGroupFactory([bundle])
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[{"ray.io/node-id": f"!in({','.join(closed)})"}])


def closed_nodes(nodes: Sequence[Mapping[str, Any]], bundle: Mapping[str, float], barred: frozenset[str]) -> list[str]:
    """Ids of the nodes that could hold it and must not: those that are barred, and for a trial without GPUs those with some.

    Each of both only as long as another node could hold it. The controller counts on the second (`service.controller.room`).
    """
    able = [node for node in nodes if node["Alive"] and all(node["Resources"].get(key, 0.0) >= n for key, n in bundle.items())]
    left = [node for node in able if node["NodeManagerHostname"] not in barred] or able
    if not bundle["GPU"]:
        left = [node for node in left if not node["Resources"].get("GPU")] or left
    return [node["NodeID"] for node in able if node not in left]
