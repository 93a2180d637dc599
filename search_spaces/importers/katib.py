"""Katib's Experiments (kubeflow.org/v1beta1): names, types and defaults as its API and its algorithms have them."""

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from search_spaces.importers.commands import flags
from search_spaces.importers.pieces import (
    LEFT_OUT,
    Found,
    Goal,
    Note,
    NotImportable,
    Part,
    Piece,
    Pieces,
    between,
    inside,
    literal,
    mapping,
    nearest,
    number,
    sequence,
    text,
    unknown,
    whole,
)
from search_spaces.importers.ranges import choices, interval
from search_spaces.importers.strategies import hyperband, lowest_rung, median, members, quantile, sampled

_API = "kubeflow.org/v1beta1"
_PARALLEL_TRIALS, _START_STEP, _MIN_TRIALS = 3, 4, 3
"""Katib's defaults."""
_SAMPLERS: Mapping[str, str] = {
    "random": "random",
    "tpe": "tpe",
    "multivariate-tpe": "tpe",
    "bayesianoptimization": "gp",
    "skopt-bayesian-optimization": "gp",
    "cmaes": "cmaes",
    "sobol": "sobol",
    "grid": "grid",
}
_KNOWN = (
    "objective", "algorithm", "earlyStopping", "parameters", "parallelTrialCount", "maxTrialCount", "trialTemplate",
    "maxFailedTrialCount", "metricsCollectorSpec", "resumePolicy",
)  # fmt: skip


def is_katib(document: Mapping[str, Any]) -> bool:
    """Whether this is an object of Katib's."""
    return str(document.get("apiVersion", "")).startswith("kubeflow.org/") and "kind" in document


def read_katib(document: Mapping[str, Any]) -> Pieces:
    """The pieces of an Experiment. Raises `NotImportable`."""
    if document["kind"] != "Experiment":
        raise NotImportable(
            "/kind", f"is {document['kind']!r}: of Katib's objects an Experiment says what to search; export that one"
        )
    if document["apiVersion"] != _API:
        yield Note("/apiVersion", f"is read as {_API}")
    yield from _metadata(mapping(document.get("metadata"), "/metadata"))
    yield from unknown(document, ("apiVersion", "kind", "metadata", "spec", "status"), "")
    if document.get("status"):
        yield Note("/status", "trials that have run do not carry over: left out")
    spec = mapping(document.get("spec"), "/spec")
    if spec.get("nasConfig"):
        raise NotImportable(
            "/spec/nasConfig", "searches an architecture, which no trainer here can: choose a pretrained model in its place"
        )
    yield from _objective(mapping(spec.get("objective"), "/spec/objective"))
    settings = _settings(mapping(spec.get("algorithm"), "/spec/algorithm"), "/spec/algorithm")
    resource = settings.get("resource_name") if _algorithm(spec) == "hyperband" else None
    yield from _parameters(spec, resource)
    yield from _strategy(spec, settings)
    yield from _counts(spec)
    yield from _template(mapping(spec.get("trialTemplate"), "/spec/trialTemplate"))
    yield from unknown(spec, _KNOWN, "/spec")


def _metadata(metadata: Mapping[str, Any]) -> Pieces:
    name = metadata.get("name") or str(metadata.get("generateName") or "").rstrip("-")
    if name:
        yield Part("name", name)
    yield from unknown(metadata, ("name", "generateName"), "/metadata", "is Kubernetes' own: left out")


def _objective(objective: Mapping[str, Any]) -> Pieces:
    path = "/spec/objective"
    direction = objective.get("type")
    if direction not in ("maximize", "minimize"):
        raise NotImportable(inside(path, "type"), f"must be `maximize` or `minimize`, not {direction!r}: mend it")
    yield Goal(
        inside(path, "objectiveMetricName"),
        text(objective.get("objectiveMetricName"), inside(path, "objectiveMetricName")),
        direction,
    )
    if objective.get("goal") is not None:
        yield Part("budget", {"target": number(objective["goal"], inside(path, "goal"))})
    if objective.get("additionalMetricNames"):
        yield Note(inside(path, "additionalMetricNames"), "a trainer here reports all of its metrics: nothing to list")
    if objective.get("metricStrategies"):
        yield Note(inside(path, "metricStrategies"), "a trial here counts with its best report: left out")
    known = ("type", "goal", "objectiveMetricName", "additionalMetricNames", "metricStrategies")
    yield from unknown(objective, known, path)


def _parameters(spec: Mapping[str, Any], resource: Any) -> Pieces:
    found = sequence(spec.get("parameters"), "/spec/parameters")
    for index, item in enumerate(found):
        path = inside("/spec/parameters", index)
        parameter = mapping(item, path)
        name = text(parameter.get("name"), inside(path, "name"))
        yield from unknown(parameter, ("name", "parameterType", "feasibleSpace"), path)
        if name == resource:
            yield Note(path, f"`{name}` is how far a trial trains, which hyperband decides here: not searched")
        else:
            yield Found(path, name, (yield from _parameter(parameter, path)))


def _parameter(parameter: Mapping[str, Any], path: str) -> Generator[Note, None, dict[str, Any]]:
    kind, place = parameter.get("parameterType"), inside(path, "feasibleSpace")
    space = mapping(parameter.get("feasibleSpace"), place)
    yield from unknown(space, ("min", "max", "step", "list", "distribution"), place)
    match kind:
        case "categorical":
            listed = sequence(space.get("list"), inside(place, "list"))
            return (yield from choices(inside(place, "list"), [literal(v) if isinstance(v, str) else v for v in listed]))
        case "discrete":
            listed = sequence(space.get("list"), inside(place, "list"))
            numbers = sorted({number(value, inside(place, "list", at)) for at, value in enumerate(listed)})
            return (yield from choices(inside(place, "list"), list(numbers), ordered=True))
        case "int" | "double":
            step = space.get("step")
            return (
                yield from interval(
                    place,
                    number(space.get("min"), inside(place, "min")),
                    number(space.get("max"), inside(place, "max")),
                    log=(yield from _is_log(space.get("distribution"), inside(place, "distribution"))),
                    step=None if step in (None, "") else number(step, inside(place, "step")),
                    whole=kind == "int",
                )
            )
        case _:
            detail = f"must be one of `int`, `double`, `categorical`, `discrete`, not {kind!r}: mend it"
            raise NotImportable(inside(path, "parameterType"), detail)


def _is_log(distribution: Any, path: str) -> Generator[Note, None, bool]:
    match distribution:
        case "normal" | "logNormal":
            said = "log-uniform" if distribution == "logNormal" else "uniform"
            yield Note(path, f"`{distribution}` is not drawn here: changed to {said} over the same range")
        case None | "" | "unknown" | "uniform" | "logUniform":
            pass
        case _:
            yield Note(path, f"{distribution!r} is not known here: changed to uniform")
    return distribution in ("logUniform", "logNormal")


def _algorithm(spec: Mapping[str, Any]) -> str:
    algorithm = mapping(spec.get("algorithm"), "/spec/algorithm")
    return text(algorithm.get("algorithmName"), "/spec/algorithm/algorithmName")


def _settings(algorithm: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The settings of an algorithm; Katib lists them by name and value, all of them texts."""
    place, found = inside(path, "algorithmSettings"), {}
    for index, item in enumerate(sequence(algorithm.get("algorithmSettings"), place)):
        setting = mapping(item, inside(place, index))
        value = setting.get("value")
        name = text(setting.get("name"), inside(place, index, "name"))
        found[name] = literal(value) if isinstance(value, str) else value
    return found


def _strategy(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> Pieces:
    name, place = _algorithm(spec), "/spec/algorithm/algorithmSettings"
    stopping = mapping(spec.get("earlyStopping"), "/spec/earlyStopping")
    yield from unknown(mapping(spec["algorithm"], "/spec/algorithm"), ("algorithmName", "algorithmSettings"), "/spec/algorithm")
    match name:
        case "hyperband":
            yield from _hyperband(settings, place)
            used = {"resource_name", "eta", "r_l"}
        case "pbt":
            used = yield from _population(settings, place)
        case "enas" | "darts":
            raise NotImportable("/spec/algorithm/algorithmName", f"`{name}` searches an architecture, which no trainer here can")
        case _:
            used = yield from _sampled(name, settings, stopping)
    yield from _seed(settings, place)
    for key in settings:
        if key not in used | {"random_state", "seed"}:
            yield Note(place, f"the setting `{key}` of {name} {LEFT_OUT}")
    if stopping and name in ("grid", "hyperband", "pbt"):
        said = "trains every trial to its end" if name == "grid" else "decides by itself which trials go on"
        yield Note("/spec/earlyStopping", f"{name} {said}: left out")


def _population(settings: Mapping[str, Any], place: str) -> Generator[Piece, None, set[str]]:
    """The strategy that copies its best; answers which settings it took."""
    found: dict[str, Any] = {"kind": "pbt"}
    if "n_population" in settings:
        found |= yield from members(place, whole(settings["n_population"], place, 1))
    if "truncation_threshold" in settings:
        # Katib replaces the worst so many and copies the best so many, as here.
        found |= yield from quantile(place, number(settings["truncation_threshold"], place))
    if "resample_probability" in settings:
        found["resample_probability"] = min(1.0, max(0.0, number(settings["resample_probability"], place)))
    yield Part("strategy", found)
    return {"n_population", "truncation_threshold", "resample_probability"}


def _sampled(name: str, settings: Mapping[str, Any], stopping: Mapping[str, Any]) -> Generator[Piece, None, set[str]]:
    """The strategy without rungs; answers which settings it took."""
    place = "/spec/algorithm/algorithmName"
    sampler = _SAMPLERS.get(name)
    if sampler is None:
        yield Note(place, f"`{name}` is not known here: changed to `random`")
        sampler = "random"
    key = {"tpe": "n_startup_trials", "gp": "n_initial_points"}.get(sampler, "")
    startup = whole(settings[key], "/spec/algorithm/algorithmSettings", 1) if key in settings else None
    if stopping and sampler != "grid":
        grace, least = yield from _early_stopping(stopping)
        yield from median(sampler, place, startup=startup, grace=grace, least=least)
    else:
        yield sampled(sampler, startup)
    return {key}


def _early_stopping(stopping: Mapping[str, Any]) -> Generator[Note, None, tuple[int, int]]:
    """After how many reports, and beside how many trials, one may be stopped."""
    path = "/spec/earlyStopping"
    place = inside(path, "algorithmSettings")
    yield from unknown(stopping, ("algorithmName", "algorithmSettings"), path)
    if stopping.get("algorithmName") != "medianstop":
        yield Note(inside(path, "algorithmName"), f"{stopping.get('algorithmName')!r} is not known here: changed to `median`")
    settings = {"start_step": _START_STEP, "min_trials_required": _MIN_TRIALS, **_settings(stopping, path)}
    for key in settings:
        if key not in ("start_step", "min_trials_required"):
            yield Note(place, f"the setting `{key}` {LEFT_OUT}")
    return whole(settings["start_step"], place), whole(settings["min_trials_required"], place)


def _hyperband(settings: Mapping[str, Any], place: str) -> Pieces:
    factor = number(settings.get("eta", 3), place)
    longest = number(settings.get("r_l"), place)
    if factor <= 1 or longest < 1:
        raise NotImportable(place, "hyperband needs an `eta` above 1 and an `r_l` of at least 1: mend them")
    # Katib's highest bracket starts with r_l / eta^s.
    least = lowest_rung(longest, factor, int(math.log(longest) / math.log(factor) + 1e-9))
    yield from between(longest, 1, 1000, place, "epochs")
    yield Part("trainer", {"epochs": nearest(longest, 1, 1000)})
    yield from hyperband(place, mode="sync", factor=factor, least=least, sampler="random")


def _seed(settings: Mapping[str, Any], place: str) -> Pieces:
    seed = settings.get("random_state", settings.get("seed"))
    if seed is not None:
        yield Part("seed", whole(seed, place) % 2**31)


def _counts(spec: Mapping[str, Any]) -> Pieces:
    most, parallel = spec.get("maxTrialCount"), spec.get("parallelTrialCount")
    if most is None and _algorithm(spec) not in ("grid", "hyperband", "pbt"):
        yield Note("/spec/maxTrialCount", "is left out, so the search never ends: a study needs a limit; set one in `budget`")
    elif most is not None:
        yield Part("budget", {"trials": whole(most, "/spec/maxTrialCount", 1)})
    count = _PARALLEL_TRIALS if parallel is None else whole(parallel, "/spec/parallelTrialCount", 1)
    yield Part("resources", {"max_concurrent_trials": min(count, 1000)})
    if spec.get("maxFailedTrialCount") is not None:
        yield Note("/spec/maxFailedTrialCount", "the service itself gives up a study whose trials all fail: left out")
    if spec.get("metricsCollectorSpec"):
        yield Note("/spec/metricsCollectorSpec", "a trainer here hands its metrics over: nothing to collect")
    if spec.get("resumePolicy"):
        yield Note("/spec/resumePolicy", "a study here goes on after every restart: left out")


def _template(template: Mapping[str, Any]) -> Pieces:
    """What the command of the trials settles, and what a trial holds."""
    path = "/spec/trialTemplate"
    if not template:
        return
    yield Note(path, "is the program to run, which a trainer is here: its image and command are left out")
    for place, container in _containers(template.get("trialSpec"), inside(path, "trialSpec")):
        if container.get("name") in (template.get("primaryContainerName"), None) or "primaryContainerName" not in template:
            words = [*sequence(container.get("command"), place), *sequence(container.get("args"), place)]
            yield from flags(words, place)
            yield from _held(container, place)
            return


def _containers(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every container in a trial's specification, whatever kind of object that is: a Job, a PyTorchJob, ..."""
    pending = [(path, value)]
    while pending:
        place, item = pending.pop(0)
        if not isinstance(item, Mapping):
            continue
        for key, inner in item.items():
            if key == "containers" and isinstance(inner, list):
                yield from ((inside(place, key, at), one) for at, one in enumerate(inner) if isinstance(one, Mapping))
            else:
                pending.append((inside(place, key), inner))


def _held(container: Mapping[str, Any], path: str) -> Pieces:
    resources = mapping(container.get("resources"), inside(path, "resources"))
    limits = {**mapping(resources.get("requests"), path), **mapping(resources.get("limits"), path)}
    gpus = limits.get("nvidia.com/gpu")
    if gpus is not None:
        yield Part("resources", {"gpus_per_trial": whole(gpus, inside(path, "resources"))})
    cpus = limits.get("cpu")
    if cpus is not None:
        # Kubernetes counts thousandths too: `500m`.
        count = number(cpus[:-1], path) / 1000 if isinstance(cpus, str) and cpus.endswith("m") else number(cpus, path)
        yield Part("resources", {"cpus_per_trial": min(max(math.ceil(count), 1), 256)})
