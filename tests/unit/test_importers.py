"""Other tools' search definitions: whole files as their users write them, and what a study makes of each part."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.importers import Imported, NotImportable, import_definition
from search_spaces.importers.names import KEYS, WHOLE, key_of, metric_of, value_of
from service.api.documents import MAX_BYTES, decode
from service.cli import run
from service.cli.imports import written
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.searched import parameter_names
from tests.builders import a_document
from trainers.configs import CONFIGS

KATIB_HYPERBAND = """---
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata:
  namespace: kubeflow
  name: bert-hyperband
spec:
  parallelTrialCount: 9
  maxTrialCount: 27
  objective:
    type: maximize
    goal: 0.93
    objectiveMetricName: Validation-accuracy
    additionalMetricNames:
      - Train-loss
  algorithm:
    algorithmName: hyperband
    algorithmSettings:
      - name: resource_name
        value: num-epochs
      - name: eta
        value: "3"
      - name: r_l
        value: "9"
      - name: random_state
        value: "10"
  maxFailedTrialCount: 2
  parameters:
    - name: --lr
      parameterType: double
      feasibleSpace: {min: "1e-5", max: "0.001", distribution: logUniform}
    - name: optimizer
      parameterType: categorical
      feasibleSpace:
        list:
          - sgd
          - adam
    - name: num-epochs
      parameterType: int
      feasibleSpace: {min: "1", max: "9"}
  trialTemplate:
    primaryContainerName: training-container
    trialParameters:
      - name: learningRate
        description: Learning rate for training the model
        reference: lr
    trialSpec:
      apiVersion: batch/v1
      kind: Job
      spec:
        template:
          spec:
            containers:
              - name: logger
                image: docker.io/example/logger:latest
                command: ["tail", "--batch-size=7"]
              - name: training-container
                image: docker.io/example/train:latest
                command:
                  - "python3"
                  - "/opt/train.py"
                  - "--batch-size=32"
                  - "--data=/mnt/rows"
                  - "--lr=${trialParameters.learningRate}"
                resources:
                  limits: {nvidia.com/gpu: 1, cpu: 1500m, memory: 8Gi}
            restartPolicy: Never
"""
KATIB_MEDIAN = """
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {name: median-stop, labels: {team: search}}
spec:
  objective: {type: minimize, goal: "0.05", objectiveMetricName: val_loss, metricStrategies: [{name: val_loss, value: min}]}
  algorithm:
    algorithmName: tpe
    algorithmSettings: [{name: n_startup_trials, value: "7"}, {name: gamma, value: "0.25"}]
  earlyStopping:
    algorithmName: medianstop
    algorithmSettings: [{name: min_trials_required, value: "1"}, {name: start_step, value: "2"}]
  maxTrialCount: 15
  resumePolicy: FromVolume
  metricsCollectorSpec: {collector: {kind: StdOut}}
  parameters:
    - {name: learning_rate, parameterType: double, feasibleSpace: {min: "0.0001", max: "0.02", distribution: logNormal}}
    - {name: momentum, parameterType: double, feasibleSpace: {min: "0.5", max: "0.9", step: "0.1"}}
    - {name: train_batch_size, parameterType: discrete, feasibleSpace: {list: ["64", "16", "32"]}}
    - {name: wd, parameterType: double, feasibleSpace: {min: "0", max: "0.1", distribution: normal}}
    - {name: max_seq_length, parameterType: int, feasibleSpace: {min: "128", max: "128"}}
"""
KATIB_GRID = """
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {generateName: grid-}
spec:
  objective: {type: maximize, objectiveMetricName: f1_macro}
  algorithm: {algorithmName: grid}
  parallelTrialCount: 4
  maxTrialCount: 12
  parameters:
    - {name: lr, parameterType: double, feasibleSpace: {min: "0.001", max: "0.005", step: "0.001"}}
    - {name: freeze_layers, parameterType: int, feasibleSpace: {min: "0", max: "6", step: "2"}}
"""
WANDB_BAYES = """
program: train.py
project: banking intents!
entity: somebody
description: Fine-tune an encoder.
method: bayes
metric:
  name: eval/accuracy
  goal: maximize
  target: 0.95
  impute: worst
run_cap: 40
parameters:
  learning_rate:
    distribution: log_uniform_values
    min: 1e-6
    max: 1e-3
  batch_size:
    distribution: q_log_uniform_values
    q: 8
    min: 32
    max: 256
  warmup_ratio: {min: 0.0, max: 0.2}
  num_train_epochs: {value: 5}
  optimizer:
    parameters:
      name: {values: [adamw_torch, SGD-like], probabilities: [0.7, 0.3]}
      weight_decay: {distribution: normal, mu: 0.1, sigma: 0.02}
  lora:
    parameters:
      r: {values: [4, 8, 16]}
      dropout: {distribution: q_uniform, min: 0, max: 0.2, q: 0.05}
command:
  - ${env}
  - python
  - ${program}
  - --max-seq-length=256
  - ${args}
"""
WANDB_HYPERBAND = """
program: train.py
name: sweepdemo
method: bayes
metric: {goal: minimize, name: val_loss}
parameters:
  lr: {distribution: log_uniform, min: -9.21034, max: -4.60517}
  epochs: {values: [5, 27, 15]}
  label_smoothing: {min: 0.0, max: 0.2}
early_terminate: {type: hyperband, s: 2, eta: 3, max_iter: 27, strict: true}
run_cap: 30
"""
WANDB_GRID = """
method: grid
metric: {name: accuracy, goal: maximize}
parameters:
  dropout: {values: [0.1, 0.2, 0.3]}
  batch_size: {min: 16, max: 24}
  seed: {value: 7}
early_terminate: {type: hyperband, min_iter: 3}
run_cap: 10
"""
DETERMINED_ASHA = """
name: bert_glue_adaptive
description: Fine-tune on a benchmark.
labels: [nlp]
entrypoint: model_def:BertTrial
environment: {image: example/env:latest}
hyperparameters:
  global_batch_size: 24
  max_seq_length: {type: const, val: 128}
  learning_rate: {type: log, base: 10, minval: -5.0, maxval: -3}
  optimizer:
    weight_decay: {type: double, minval: 0.0, maxval: 0.2}
    name: {type: categorical, vals: [adamw, sgd]}
  lora_r: {type: log, base: 2, minval: 2, maxval: 6}
searcher:
  name: adaptive_asha
  metric: validation_accuracy
  smaller_is_better: false
  max_trials: 64
  max_concurrent_trials: 8
  time_metric: epochs
  max_time: 16
  mode: aggressive
resources: {slots_per_trial: 2, resource_pool: a100}
reproducibility: {experiment_seed: 42}
max_restarts: 2
"""
DETERMINED_GRID = """
name: grid
hyperparameters:
  dropout: {type: double, minval: 0.1, maxval: 0.5, count: 3}
  learning_rate: {type: log, base: 10, minval: -4, maxval: -2, count: 3}
  frozen_layers: {type: int, minval: 0, maxval: 2, count: 9}
  weight_decay: 0.01
searcher: {name: grid, metric: val_loss, max_length: {epochs: 3}}
resources: {slots_per_trial: 0}
entrypoint: python3 train.py
"""
DETERMINED_RANDOM = """
name: steps
data: {url: s3://bucket/rows}
hyperparameters:
  global_batch_size: {type: int, minval: 16, maxval: 64}
  lr: {type: double, minval: 0.0001, maxval: 0.01}
searcher: {name: random, metric: loss, max_trials: 20, max_length: {batches: 1000}}
min_validation_period: {batches: 300}
checkpoint_policy: best
"""
FILES = {
    "katib-hyperband": KATIB_HYPERBAND,
    "katib-median": KATIB_MEDIAN,
    "katib-grid": KATIB_GRID,
    "wandb-bayes": WANDB_BAYES,
    "wandb-hyperband": WANDB_HYPERBAND,
    "wandb-grid": WANDB_GRID,
    "determined-asha": DETERMINED_ASHA,
    "determined-grid": DETERMINED_GRID,
    "determined-random": DETERMINED_RANDOM,
}
ROOT = Path(__file__).parents[2]
OPTIONS = ("--model", "tiny", "--train", "dataset://rows/train.csv")


def imported(text: str) -> Imported:
    return import_definition(decode(text.encode(), None))


def notes(text: str) -> dict[str, str]:
    return {note.path: note.detail for note in imported(text).notes}


def a_sweep(**changes: Any) -> dict[str, Any]:
    """A sweep with one parameter."""
    document: dict[str, Any] = {
        "method": "random",
        "metric": {"name": "val_loss"},
        "parameters": {"lr": {"min": 0.001, "max": 0.1}},
        "run_cap": 3,
    }
    return {**document, **changes}


def an_experiment(algorithm: str, **settings: str) -> dict[str, Any]:
    """A Katib Experiment with one parameter."""
    listed = [{"name": name, "value": value} for name, value in settings.items()]
    parameter = {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.2"}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": algorithm, "algorithmSettings": listed},
            "maxTrialCount": 5,
            "parameters": [parameter],
        },
    }


def a_determined(searcher: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """An experiment of Determined's with one parameter."""
    whole = {"name": "random", "metric": "val_loss", "max_trials": 4, "max_length": {"epochs": 9}, **(searcher or {})}
    document: dict[str, Any] = {
        "hyperparameters": {"lr": {"type": "double", "minval": 0.1, "maxval": 0.2}},
        "searcher": {key: value for key, value in whole.items() if value is not None},
        "resources": {"slots_per_trial": 0},
    }
    return {**document, **changes}


def parameter_of(parameter: dict[str, Any], name: str = "other") -> dict[str, Any]:
    """What one parameter of a sweep becomes."""
    found: dict[str, Any] = import_definition(a_sweep(parameters={name: parameter})).document["space"][name]
    return found


def test_a_katib_experiment_with_hyperband_is_a_study_of_the_same_ladder() -> None:
    found = imported(KATIB_HYPERBAND)
    assert (found.tool, found.document) == (
        "katib",
        {
            "name": "bert-hyperband",
            "trainer": {"epochs": 9, "batch_size": 32},
            "space": {
                "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-3, "log": True},
                "optimizer": {"kind": "categorical", "choices": ["sgd", "adamw"]},
            },
            "objective": {"metric": "validation/accuracy", "direction": "maximize"},
            "strategy": {
                "kind": "hyperband",
                "mode": "sync",
                "reduction_factor": 3,
                "min_epochs": 1,
                "sampler": {"kind": "random"},
            },
            "budget": {"target": 0.93, "trials": 27},
            "resources": {"max_concurrent_trials": 9, "gpus_per_trial": 1, "cpus_per_trial": 2},
            "seed": 10,
        },
    )


def test_katibs_median_stop_ends_the_trials_of_the_same_sampler() -> None:
    document = imported(KATIB_MEDIAN).document
    assert document["strategy"] == {
        "kind": "median",
        "grace_reports": 2,
        "min_trials": 1,
        "sampler": {"kind": "tpe", "startup_trials": 7},
    }
    assert document["trainer"] == {"max_length": 128}
    assert document["space"] == {
        "learning_rate": {"kind": "float", "low": 0.0001, "high": 0.02, "log": True},
        "momentum": {"kind": "float", "low": 0.5, "high": 0.9, "step": 0.1},
        "batch_size": {"kind": "categorical", "choices": [16, 32, 64], "ordered": True},
        "weight_decay": {"kind": "float", "low": 0.0, "high": 0.1},
    }
    assert document["resources"] == {"max_concurrent_trials": 3}


def test_each_thing_of_katibs_that_does_not_carry_over_is_said_with_its_place() -> None:
    said = notes(KATIB_MEDIAN)
    assert {
        "/metadata/labels",
        "/spec/objective/metricStrategies",
        "/spec/algorithm/algorithmSettings",
        "/spec/resumePolicy",
        "/spec/metricsCollectorSpec",
        "/spec/parameters/0/feasibleSpace/distribution",
        "/spec/parameters/3/feasibleSpace/distribution",
    } <= set(said)
    assert "`normal` is not drawn here" in said["/spec/parameters/3/feasibleSpace/distribution"]


def test_a_grid_that_is_larger_than_the_budget_is_sampled() -> None:
    document = imported(KATIB_GRID).document
    assert document["strategy"] == {"kind": "grid", "sample": True}
    assert document["space"]["frozen_layers"] == {"kind": "int", "low": 0, "high": 6, "step": 2}
    assert "the grid is larger than 12 trials" in notes(KATIB_GRID)[""]


def test_a_sweep_with_nested_parameters_is_a_study_with_dotted_ones() -> None:
    found = imported(WANDB_BAYES)
    assert (found.tool, found.document) == (
        "wandb",
        {
            "name": "banking intents",
            "trainer": {"epochs": 5, "max_length": 256},
            "space": {
                "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True},
                "batch_size": {"kind": "int", "low": 32, "high": 256, "log": True},
                "warmup_fraction": {"kind": "float", "low": 0.0, "high": 0.2},
                "optimizer": {"kind": "categorical", "choices": ["adamw", "SGD-like"]},
                "weight_decay": {"kind": "float", "low": 0.04, "high": 0.16},
                "lora.rank": {"kind": "categorical", "choices": [4, 8, 16]},
                "lora.dropout": {"kind": "float", "low": 0.0, "high": 0.2, "step": 0.05},
            },
            "objective": {"metric": "validation/accuracy", "direction": "maximize"},
            "strategy": {"kind": "bayesian", "sampler": {"kind": "gp"}},
            "budget": {"target": 0.95, "trials": 40},
        },
    )


def test_each_thing_of_a_sweep_that_does_not_carry_over_is_said_with_its_place() -> None:
    said = notes(WANDB_BAYES)
    assert {"", "/entity", "/description", "/metric/impute", "/parameters/batch_size", "/command"} <= set(said)
    assert "uniform from 0.04 to 0.16" in said["/parameters/optimizer/parameters/weight_decay/distribution"]
    assert "as likely" in said["/parameters/optimizer/parameters/name/probabilities"]


def test_a_sweep_that_ends_runs_early_is_an_asynchronous_ladder_as_long_as_its_longest_run() -> None:
    document = imported(WANDB_HYPERBAND).document
    assert document["strategy"] == {
        "kind": "hyperband",
        "mode": "async",
        "reduction_factor": 3,
        "min_epochs": 3,
        "sampler": {"kind": "tpe"},
    }
    assert document["trainer"] == {"epochs": 27}
    assert document["space"]["learning_rate"] == {
        "kind": "float",
        "low": 0.0001,
        "high": 0.01,
        "log": True,
    }
    assert "`epochs` is 27" in notes(WANDB_HYPERBAND)["/parameters/epochs"]


def test_a_grid_sweep_stops_no_run_early() -> None:
    assert imported(WANDB_GRID).document["strategy"] == {"kind": "grid", "sample": True}
    assert "left out" in notes(WANDB_GRID)["/early_terminate"]


def test_an_adaptive_experiment_of_determineds_is_an_asynchronous_ladder() -> None:
    found = imported(DETERMINED_ASHA)
    assert (found.tool, found.document) == (
        "determined",
        {
            "name": "bert_glue_adaptive",
            "trainer": {"epochs": 16, "batch_size": 24, "max_length": 128},
            "space": {
                "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-3, "log": True},
                "weight_decay": {"kind": "float", "low": 0.0, "high": 0.2},
                "optimizer": {"kind": "categorical", "choices": ["adamw", "sgd"]},
                "lora.rank": {"kind": "int", "low": 4, "high": 64, "log": True},
            },
            "objective": {"metric": "validation/accuracy", "direction": "maximize"},
            "strategy": {
                "kind": "hyperband",
                "mode": "async",
                "reduction_factor": 4,
                "min_epochs": 1,
                "sampler": {"kind": "random"},
            },
            "budget": {"trials": 64},
            "resources": {"max_concurrent_trials": 8, "gpus_per_trial": 2},
            "seed": 42,
        },
    )


def test_a_grid_of_determineds_tries_the_values_that_its_counts_stand_for() -> None:
    space = imported(DETERMINED_GRID).document["space"]
    assert space["dropout"]["grid"] == [0.1, 0.3, 0.5]
    assert space["learning_rate"]["grid"] == [0.0001, 0.001, 0.01]
    assert space["frozen_layers"]["grid"] == [0, 1, 2]


def test_a_length_in_batches_reports_as_often_as_the_experiment_validates() -> None:
    assert imported(DETERMINED_RANDOM).document["trainer"] == {"max_steps": 1000, "report_every": 300}


def test_a_length_without_a_unit_is_taken_as_batches_and_said() -> None:
    found = import_definition(a_determined({"max_length": 500}))
    assert found.document["trainer"] == {"max_steps": 500, "report_every": 50}
    assert any(note.path == "/searcher/max_length" and "taken as batches" in note.detail for note in found.notes)


def test_each_thing_of_determineds_that_does_not_carry_over_is_said_with_its_place() -> None:
    assert {"/labels", "/entrypoint", "/environment", "/max_restarts", "/searcher/mode", "/resources/resource_pool"} <= set(
        notes(DETERMINED_ASHA)
    )
    assert "set `resources.gpus_per_trial`" in notes(DETERMINED_RANDOM)["/resources/slots_per_trial"]


@pytest.mark.parametrize(
    ("algorithm", "strategy"),
    [
        ("random", {"kind": "random"}),
        ("grid", {"kind": "grid"}),
        ("sobol", {"kind": "sobol"}),
        ("tpe", {"kind": "bayesian", "sampler": {"kind": "tpe"}}),
        ("multivariate-tpe", {"kind": "bayesian", "sampler": {"kind": "tpe"}}),
        ("bayesianoptimization", {"kind": "bayesian", "sampler": {"kind": "gp"}}),
        ("cmaes", {"kind": "bayesian", "sampler": {"kind": "cmaes"}}),
        ("pbt", {"kind": "pbt"}),
        ("something-new", {"kind": "random"}),
    ],
)
def test_each_algorithm_of_katibs_has_its_strategy(algorithm: str, strategy: dict[str, Any]) -> None:
    assert import_definition(an_experiment(algorithm)).document["strategy"] == strategy


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"n_population": "40", "truncation_threshold": "0.4"}, {"population": 40, "quantile": 0.4}),
        ({"resample_probability": "0.3"}, {"resample_probability": 0.3}),
        ({"n_population": "500"}, {"population": 200}),
        ({"truncation_threshold": "0.7"}, {}),
    ],
)
def test_katibs_population_carries_over_as_far_as_it_can_be_one_here(settings: dict[str, str], expected: dict[str, Any]) -> None:
    found = import_definition(an_experiment("pbt", **settings))
    assert found.document["strategy"] == {"kind": "pbt", **expected}
    said = [note.detail for note in found.notes if note.path == "/spec/algorithm/algorithmSettings"]
    assert len(said) == (1 if settings.get("n_population") == "500" or settings.get("truncation_threshold") == "0.7" else 0)


@pytest.mark.parametrize(
    ("algorithm", "strategy"),
    [
        ("random", ("median", "random")),
        ("bayesianoptimization", ("median", "gp")),
        ("cmaes", ("median", "tpe")),
        ("sobol", ("median", "random")),
        ("grid", ("grid", None)),
    ],
)
def test_early_stopping_goes_with_what_can_propose_beside_it(algorithm: str, strategy: tuple[str, str | None]) -> None:
    experiment = an_experiment(algorithm)
    experiment["spec"]["earlyStopping"] = {"algorithmName": "medianstop"}
    found = import_definition(experiment).document["strategy"]
    assert (found["kind"], found.get("sampler", {}).get("kind")) == strategy
    assert (found.get("grace_reports"), found.get("min_trials")) == ((None, None) if algorithm == "grid" else (4, 3))


def test_an_algorithm_that_is_not_known_is_said() -> None:
    (note,) = [note for note in import_definition(an_experiment("something-new")).notes if "something-new" in note.detail]
    assert note.path == "/spec/algorithm/algorithmName"


@pytest.mark.parametrize(
    ("searcher", "strategy"),
    [
        ({"name": "random"}, {"kind": "random"}),
        ({"name": "pbt"}, {"kind": "pbt"}),
        ({"name": "adaptive", "divisor": 3}, ("sync", 3, 1)),
        ({"name": "async_halving", "num_rungs": 2, "divisor": 3}, ("async", 3, 3)),
        ({"name": "adaptive_asha", "divisor": 1e200, "max_rungs": 1000}, ("async", 10, 1)),
        ({"name": "adaptive_asha", "divisor": 20.5}, ("async", 10, 1)),
    ],
)
def test_each_searcher_of_determineds_has_its_strategy(searcher: dict[str, Any], strategy: Any) -> None:
    found = import_definition(a_determined(searcher)).document["strategy"]
    if isinstance(strategy, tuple):
        found = (found["mode"], found["reduction_factor"], found["min_epochs"])
    assert found == strategy


POPULATION = {
    "name": "pbt", "max_trials": None, "max_length": None, "population_size": 40, "num_rounds": 6,
    "length_per_round": {"batches": 200}, "replace_function": {"truncate_fraction": 0.2},
    "explore_function": {"resample_probability": 0.3, "perturb_factor": 0.2},
}  # fmt: skip


def test_determineds_population_is_one_here_that_trains_as_long_between_two_comparisons() -> None:
    found = import_definition(a_determined(POPULATION))
    assert found.document["strategy"] == {
        "kind": "pbt", "population": 40, "interval": 1, "quantile": 0.2, "resample_probability": 0.3, "factors": [0.8, 1.2]
    }  # fmt: skip
    assert found.document["trainer"] == {"max_steps": 1200, "report_every": 200}
    assert "budget" not in found.document
    assert not [note for note in found.notes if "left out" in note.detail]
    trainer = {**a_document()["trainer"], **found.document["trainer"]}
    assert parse_definition({**found.document, "objective": a_document()["objective"], "trainer": trainer})


@pytest.mark.parametrize(
    ("changes", "trainer", "interval"),
    [
        ({"length_per_round": {"epochs": 3}}, {"epochs": 18}, 3),
        ({"length_per_round": {"records": 500}}, {"epochs": 3}, 1),
        ({"length_per_round": {"epochs": 500}}, {"epochs": 1000}, 167),
        ({"num_rounds": None}, {}, None),
    ],
)
def test_the_rounds_of_a_population_make_up_a_trial(
    changes: dict[str, Any], trainer: dict[str, Any], interval: int | None
) -> None:
    found = import_definition(a_determined({**POPULATION, **changes}, records_per_epoch=1000)).document
    assert (found["trainer"], found["strategy"].get("interval")) == (trainer, interval)


def test_a_population_that_validates_within_a_round_is_compared_at_its_end() -> None:
    found = import_definition(a_determined(POPULATION, min_validation_period={"batches": 50})).document
    assert (found["trainer"], found["strategy"]["interval"]) == ({"max_steps": 1200, "report_every": 50}, 4)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"population_size": 1}, "/searcher/population_size"),
        ({"num_rounds": 1}, "/searcher/num_rounds"),
        ({"num_rounds": None}, "/searcher/num_rounds"),
        ({"replace_function": {"truncate_fraction": 0.7}}, "/searcher/replace_function/truncate_fraction"),
        ({"replace_function": {"binary_tournament": 1}}, "/searcher/replace_function/binary_tournament"),
        ({"explore_function": {"perturb_factor": 1}}, "/searcher/explore_function/perturb_factor"),
        ({"explore_function": {"jitter": 1}}, "/searcher/explore_function/jitter"),
        ({"source_trial_id": 7}, "/searcher/source_trial_id"),
    ],
)
def test_what_of_a_population_does_not_carry_over_is_said(changes: dict[str, Any], path: str) -> None:
    usual, found = (import_definition(a_determined({**POPULATION, **more})).notes for more in ({}, changes))
    assert path in {note.path for note in found} - {note.path for note in usual}


def test_a_single_experiment_is_a_study_of_one_trial() -> None:
    document = import_definition(a_determined({"name": "single", "max_trials": None})).document
    assert document["budget"] == {"trials": 1}


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ({"value": None}, {"kind": "constant", "value": None}),
        ({"values": ["a", 1, True]}, {"kind": "categorical", "choices": ["a", 1, True]}),
        ({"values": [1, 1.0, 1]}, {"kind": "categorical", "choices": [1, 1.0]}),
        ({"values": ["only"]}, {"kind": "constant", "value": "only"}),
        ({"min": 1, "max": 5}, {"kind": "int", "low": 1, "high": 5}),
        ({"min": 1, "max": 5.0}, {"kind": "float", "low": 1.0, "high": 5.0}),
        ({"min": 2.0, "max": 2.0}, {"kind": "constant", "value": 2.0}),
        ({"distribution": "int_uniform", "min": 1, "max": 5}, {"kind": "int", "low": 1, "high": 5}),
        ({"distribution": "q_uniform", "min": 8, "max": 64, "q": 8}, {"kind": "int", "low": 8, "high": 64, "step": 8}),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.3}, {"kind": "float", "low": 0.0, "high": 0.9, "step": 0.3}),
        ({"distribution": "uniform", "min": 0, "max": 1}, {"kind": "float", "low": 0.0, "high": 1.0}),
        (
            {"distribution": "inv_log_uniform_values", "min": 0.1, "max": 1},
            {"kind": "float", "low": 0.1, "high": 1.0, "log": True},
        ),
        ({"distribution": "beta", "a": 2, "b": 5}, {"kind": "float", "low": 0.0, "high": 1.0}),
        ({"distribution": "q_normal", "mu": 10, "sigma": 2, "q": 2}, {"kind": "int", "low": 4, "high": 16, "step": 2}),
    ],
)
def test_each_distribution_of_a_sweep_has_its_parameter(parameter: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.dumps(parameter_of(parameter)) == json.dumps(expected)


def test_exponents_are_taken_as_exponents() -> None:
    found = parameter_of({"distribution": "inv_log_uniform", "min": 0, "max": 1})
    assert (found["low"], found["high"]) == (0.367879, 1.0)


def test_a_logarithm_of_nothing_is_drawn_uniformly_and_said() -> None:
    found = import_definition(a_sweep(parameters={"lr": {"distribution": "log_uniform_values", "min": 0, "max": 1}}))
    assert found.document["space"]["learning_rate"] == {"kind": "float", "low": 0.0, "high": 1.0}
    assert any("logarithm" in note.detail and note.path == "/parameters/lr" for note in found.notes)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lr", "learning_rate"),
        ("--lr", "learning_rate"),
        ("learningRate", "learning_rate"),
        ("learning-rate", "learning_rate"),
        ("per_device_train_batch_size", "batch_size"),
        ("bs", "batch_size"),
        ("wd", "weight_decay"),
        ("num_train_epochs", "epochs"),
        ("training.optimizer.lr", "learning_rate"),
        ("optimizer.name", "optimizer"),
        ("lora.r", "lora.rank"),
        ("lora.dropout", "lora.dropout"),
        ("model.dropout", "dropout"),
        ("num-layers", None),
        ("kind", None),
    ],
)
def test_names_of_other_tools_are_keys_of_the_trainers(name: str, key: str | None) -> None:
    assert key_of(name) == key


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("optimizer", "AdamW", "adamw"),
        ("optimizer", "adam", "adamw"),
        ("optimizer", "ftrl", "ftrl"),
        ("schedule", "CosineAnnealingLR", "cosine"),
        ("schedule", None, "constant"),
        ("precision", 16, "fp16"),
        ("batch_size", 16, 16),
    ],
)
def test_values_of_other_tools_are_values_of_the_trainers(key: str, value: Any, ours: Any) -> None:
    assert value_of(key, value) == ours


def test_the_keys_that_names_stand_for_are_those_of_the_trainers() -> None:
    trainers = [config for config in CONFIGS.values() if "model" in config.model_fields]
    theirs = {name for config in trainers for name in parameter_names(config)}
    assert {name for name in theirs if not name.startswith("data.")} - {"kind"} == KEYS
    assert WHOLE <= KEYS


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("Validation-accuracy", "validation/accuracy"),
        ("val_loss", "validation/loss"),
        ("eval/f1_macro", "validation/f1_macro"),
        ("valAcc", "validation/accuracy"),
        ("loss", "validation/loss"),
        ("train_loss", "train/loss"),
        ("train_accuracy", None),
        ("test_accuracy", None),
        ("reward", None),
    ],
)
def test_metrics_of_other_tools_are_metrics_of_the_trainers(name: str, metric: str | None) -> None:
    assert metric_of(name) == metric


def test_a_parameter_that_no_trainer_has_is_kept_and_said() -> None:
    found = import_definition(a_sweep(parameters={"num-layers": {"min": 2, "max": 5}}))
    assert list(found.document["space"]) == ["num-layers"]
    assert any(note.path == "/parameters/num-layers" and "give it the name of one" in note.detail for note in found.notes)


def test_the_first_of_two_names_for_one_key_keeps_it() -> None:
    found = import_definition(a_sweep(parameters={"lr": {"min": 0.1, "max": 0.2}, "learning_rate": {"value": 0.5}}))
    assert found.document["space"] == {"learning_rate": {"kind": "float", "low": 0.1, "high": 0.2}}
    assert any(note.path == "/parameters/learning_rate" and "left out" in note.detail for note in found.notes)


def test_a_key_that_nobody_knows_is_said() -> None:
    found = import_definition(a_sweep(scheduler={"engine": "wandb"}))
    assert [note.detail for note in found.notes if note.path == "/scheduler"] == ["has no counterpart here: left out"]


def test_a_search_without_an_end_is_said() -> None:
    found = import_definition({key: value for key, value in a_sweep().items() if key != "run_cap"})
    assert any(note.path == "/run_cap" and "limit" in note.detail for note in found.notes)


def test_a_whole_number_with_a_real_range_is_searched_in_whole_numbers() -> None:
    found = import_definition(a_sweep(parameters={"batch_size": {"distribution": "uniform", "min": 15.5, "max": 64}}))
    assert found.document["space"]["batch_size"] == {"kind": "int", "low": 16, "high": 64}


def test_a_run_is_as_long_as_the_sweep_says_whatever_its_last_rung() -> None:
    stopping = {"type": "hyperband", "max_iter": 9, "s": 2}
    found = import_definition(
        a_sweep(parameters={"lr": {"min": 0.1, "max": 0.2}, "epochs": {"value": 20}}, early_terminate=stopping)
    )
    assert found.document["trainer"] == {"epochs": 20}
    assert import_definition(a_sweep(early_terminate=stopping)).document["trainer"] == {"epochs": 9}


def test_what_the_searcher_says_of_a_trials_length_comes_before_a_hyperparameter() -> None:
    lr = {"type": "double", "minval": 0.1, "maxval": 0.2}
    found = import_definition(a_determined(hyperparameters={"lr": lr, "num_epochs": 50}))
    assert found.document["trainer"] == {"epochs": 9}
    assert any(note.path == "/hyperparameters/num_epochs" and "left out" in note.detail for note in found.notes)


def test_a_name_that_no_study_may_have_is_changed_and_said() -> None:
    found = import_definition(a_sweep(name="#1: try/this"))
    assert found.document["name"] == "1- try-this"
    assert any("the study is called '1- try-this'" in note.detail for note in found.notes)


@pytest.mark.parametrize(
    ("document", "path", "said"),
    [
        ([], "", "an object"),
        ({"a": 1}, "", "Katib Experiment"),
        ({"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"}, "/kind", "an Experiment"),
        ({**an_experiment("random"), "spec": {"nasConfig": {"a": 1}}}, "/spec/nasConfig", "architecture"),
        (an_experiment("darts"), "/spec/algorithm/algorithmName", "architecture"),
        (an_experiment("hyperband", eta="1", r_l="9"), "/spec/algorithm/algorithmSettings", "`eta` above 1"),
        (an_experiment("tpe", n_startup_trials="many"), "/spec/algorithm/algorithmSettings", "a number, not 'many'"),
        (a_sweep(parameters=[1]), "/parameters", "must be an object"),
        (a_sweep(parameters={"lr": 3}), "/parameters/lr", "must be an object"),
        (a_sweep(parameters={"a/b": {}}), "/parameters/a~1b", "`value`, `values`, or `min` and `max`"),
        (a_sweep(parameters={"lr": {"min": 2, "max": 1}}), "/parameters/lr", "swap the two"),
        (a_sweep(parameters={"lr": {"min": 0, "max": float("inf")}}), "/parameters/lr/max", "must be a number"),
        (a_sweep(parameters={"lr": {"min": True, "max": 2}}), "/parameters/lr/min", "must be a number"),
        (a_sweep(parameters={"lr": {"values": []}}), "/parameters/lr", "holds no value"),
        (a_sweep(parameters={"lr": {"values": list(range(1001))}}), "/parameters/lr", "more than 1000"),
        (a_sweep(parameters={"lr": {"distribution": "gamma"}}), "/parameters/lr/distribution", "'gamma' is none"),
        (a_sweep(parameters={"lr": {"distribution": "log_uniform", "min": 1, "max": 1e9}}), "/parameters/lr", "too large"),
        (
            a_sweep(parameters={"lr": {"distribution": "q_uniform", "min": 0, "max": 1e299, "q": 1e-300}}),
            "/parameters/lr",
            "the step of 1e-300 is too small for the range: make it larger",
        ),
        (
            a_sweep(parameters={"batch_size": {"distribution": "uniform", "min": 1.2, "max": 1.8}}),
            "/parameters/batch_size",
            "holds no whole number: widen the range",
        ),
        (a_sweep(metric={"name": "loss", "goal": "best"}), "/metric/goal", "`maximize` or `minimize`"),
        (a_sweep(run_cap=0), "/run_cap", "from 1 on"),
        (a_sweep(early_terminate={"type": "hyperband"}), "/early_terminate/min_iter", "a number, not nothing"),
        (a_determined({"metric": 3}), "/searcher/metric", "must be a text"),
        (a_determined({"smaller_is_better": 0}), "/searcher/smaller_is_better", "true or false"),
        (a_determined({"max_length": "long"}), "/searcher/max_length", "must be a number"),
        (a_determined({"max_length": {"eons": 1}}), "/searcher/max_length", "`epochs`, `batches`, `records`"),
        (a_determined(hyperparameters={"lr": {"type": "ord"}}), "/hyperparameters/lr/type", "not 'ord'"),
        (
            a_determined(hyperparameters={"lr": {"type": "log", "base": 10, "minval": 1, "maxval": 999}}),
            "/hyperparameters/lr",
            "are exponents",
        ),
        (
            a_determined(hyperparameters={"lr": {"type": "log", "base": 10, "minval": 1, "maxval": 10**9}}),
            "/hyperparameters/lr",
            "are exponents",
        ),
        (
            a_determined({"name": "grid"}),
            "/hyperparameters/lr/count",
            "a number, not nothing",
        ),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(document: Any, path: str, said: str) -> None:
    with pytest.raises(NotImportable) as refused:
        import_definition(document)
    assert refused.value.path == path
    assert said in refused.value.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1e9, 0.5, "", "a", "1", "nan"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "min", "value", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_with_anything_in_any_place_is_imported_or_refused(data: st.DataObject) -> None:
    document = decode(data.draw(st.sampled_from(list(FILES.values()))).encode(), None)
    places = list(_places(document))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(JSON)
    with contextlib.suppress(NotImportable):
        found = import_definition(document)
        assert decode(written(found.document, found.tool).encode(), None) == json.loads(json.dumps(found.document))


def _places(value: Any) -> Any:
    """Every place in a document where a value stands."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def a_file(folder: Path, text: str) -> str:
    file = folder / "theirs.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def studied(text: str) -> StudyDefinition:
    return parse_definition(decode(text.encode(), None))


TRAINERS = {"wandb-bayes": ("optimizer", ["adamw", "SGD-like"])}
"""Values that no trainer here has: the study is refused until they are replaced."""


@pytest.mark.parametrize("name", [name for name in FILES if name not in TRAINERS])
def test_an_imported_file_is_a_valid_study_once_model_and_rows_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(["study", "import", a_file(tmp_path, FILES[name]), *OPTIONS]) == 0
    printed = capsys.readouterr()
    study = studied(printed.out)
    assert study.trainer.model == "tiny"
    assert "to do in the study" not in printed.err


@pytest.mark.parametrize("algorithm", ["random", "tpe", "bayesianoptimization", "cmaes", "sobol"])
@pytest.mark.parametrize("stopping", [None, {"algorithmName": "medianstop"}])
def test_each_strategy_is_one_that_a_study_may_have(algorithm: str, stopping: dict[str, str] | None) -> None:
    experiment = an_experiment(algorithm)
    experiment["spec"]["earlyStopping"] = stopping
    document = import_definition(experiment).document
    trainer = {"kind": "causal-lm", "model": "tiny", "data": {"train": "dataset://rows/train.csv"}, "epochs": 5}
    assert parse_definition({**document, "trainer": trainer}).strategy.kind == document["strategy"]["kind"]


def test_the_written_study_says_the_same_to_both_versions_of_yaml() -> None:
    words = ["no", "1e-3", "0x1f", "a: b", "", " ", "ünï\u0085\U0001f600", "2030-01-02", "plain", "a/b"]
    values = [*words, 1e-7, 1e22, -0.5, 3, None, True, [1, {"y": "on"}]]
    text = written({"name": "n", "space": {"odd key: #": {"choices": values}}}, "wandb")
    assert yaml.safe_load(text) == decode(text.encode(), None)
    assert yaml.safe_load(text)["space"]["odd key: #"]["choices"] == values


def test_what_is_left_out_stands_in_the_study_as_comments_and_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["study", "import", a_file(tmp_path, WANDB_GRID)]) == 0
    printed = capsys.readouterr()
    assert "  # model: OWNER/NAME" in printed.out
    assert "  # data: {train: dataset://NAME/FILE}" in printed.out
    assert "the trainer is text-classification: --trainer names another" in printed.err
    assert yaml.safe_load(printed.out)["trainer"] == {"kind": "text-classification", "seed": 7}
    assert "  /trainer/model: is required: add it\n  /trainer/data: is required: add it" in printed.err


def test_what_a_service_would_refuse_is_said_beforehand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "import", a_file(tmp_path, WANDB_BAYES), *OPTIONS]) == 0
    assert "/space/optimizer/choices/1: `optimizer` cannot be 'SGD-like'" in capsys.readouterr().err


def test_an_option_comes_before_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = yaml.safe_dump(a_sweep(parameters={"lr": {"min": 0.1, "max": 0.2}, "model_name": {"value": "theirs"}}))
    assert run(["study", "import", a_file(tmp_path, sweep), "--trainer", "seq2seq", *OPTIONS]) == 0
    assert studied(capsys.readouterr().out).trainer.model == "tiny"


def test_only_the_study_is_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["study", "import", a_file(tmp_path, KATIB_GRID), *OPTIONS])
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["name"] == "grid"
    assert "note: /spec/parameters/0: `lr` is `learning_rate` here" in printed.err


def test_a_study_is_written_to_a_file_and_never_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "study.yaml"
    target.write_text("mine")
    arguments = ["study", "import", a_file(tmp_path, KATIB_GRID), *OPTIONS, "--to", str(target)]
    assert run(arguments) == 2
    assert target.read_text() == "mine"
    assert "add --force" in capsys.readouterr().err
    assert run([*arguments, "--force"]) == 0
    assert studied(target.read_text()).name == "grid"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just words", "must be an object"),
        ("a: [", "Line "),
        ("a: &x {b: 1}\nc: *x", "aliases"),
        (f"{KATIB_GRID}---\n{KATIB_GRID}", "holds several documents: keep the one to import"),
        ("a: !!python/object:os.system {}", "Line 1"),
        ("x" * (MAX_BYTES + 1), "larger than"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        (KATIB_GRID.replace("Experiment", "Suggestion"), "/kind: is 'Suggestion'"),
    ],
)
def test_a_file_that_is_no_search_definition_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = a_file(tmp_path, text)
    assert run(["study", "import", file, "--to", str(tmp_path / "study.yaml")]) == 4
    error = capsys.readouterr().err
    assert f"error: {file}: " in error
    assert said in error
    assert not (tmp_path / "study.yaml").exists()


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "import", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_trainer_that_is_none_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "import", a_file(tmp_path, KATIB_GRID), "--trainer", "poetry"]) == 2
    assert "text-classification" in capsys.readouterr().err


def test_a_definition_comes_from_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KATIB_GRID.encode())))
    assert run(["study", "import", "-", *OPTIONS]) == 0
    assert studied(capsys.readouterr().out).name == "grid"


def test_importing_loads_nothing_of_the_service() -> None:
    rooms = ("service", "trainers", "yaml")
    code = f"import sys, search_spaces.importers; print([name for name in sys.modules if name.partition('.')[0] in {rooms}])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
