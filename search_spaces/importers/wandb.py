"""Sweeps of Weights & Biases: distributions, defaults and early stopping as its sweep schema has them."""

import math
from collections.abc import Generator, Mapping
from typing import Any

from search_spaces.importers.commands import flags
from search_spaces.importers.names import key_of
from search_spaces.importers.pieces import (
    Found,
    Goal,
    Note,
    NotImportable,
    Part,
    Pieces,
    between,
    inside,
    mapping,
    nearest,
    number,
    sequence,
    text,
    unknown,
    whole,
)
from search_spaces.importers.ranges import choices, constant, interval
from search_spaces.importers.strategies import hyperband, lowest_rung, sampled

_SAMPLERS: Mapping[str, str] = {"grid": "grid", "random": "random", "bayes": "gp"}
_KNOWN = (
    "method", "metric", "metrics", "parameters", "early_terminate", "run_cap", "name", "project", "entity", "description",
    "program", "command", "kind",
)  # fmt: skip
_PARAMETER = ("distribution", "value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "a", "b", "parameters")
_DEVIATIONS = 3
"""A normal distribution is cut off so many standard deviations from its mean."""


def is_wandb(document: Mapping[str, Any]) -> bool:
    """Whether this is a sweep's configuration."""
    return "method" in document and "parameters" in document


def read_wandb(document: Mapping[str, Any]) -> Pieces:
    """The pieces of a sweep. Raises `NotImportable`."""
    if document.get("name") or document.get("project"):
        yield Part("name", document.get("name") or document["project"])
    yield from _objective(document)
    yield from _parameters(mapping(document.get("parameters"), "/parameters"), "/parameters", "")
    yield from _strategy(document)
    if document.get("run_cap") is None and document["method"] != "grid":
        yield Note("/run_cap", "is left out, so the sweep never ends: a study needs a limit; set one in `budget`")
    elif document.get("run_cap") is not None:
        yield Part("budget", {"trials": whole(document["run_cap"], "/run_cap", 1)})
    if document.get("program") or document.get("command"):
        place = "/command" if document.get("command") else "/program"
        yield Note(place, "is the program to run, which a trainer is here: left out")
        yield from flags(sequence(document.get("command"), "/command"), "/command")
    for key in ("entity", "project", "description"):
        if key in document and (key != "project" or document.get("name")):
            yield Note(inside("", key), "is for the W&B site: left out")
    yield from unknown(document, _KNOWN, "")


def _objective(document: Mapping[str, Any]) -> Pieces:
    several = sequence(document.get("metrics"), "/metrics")
    path = "/metrics/0" if several else "/metric"
    metric = mapping(several[0] if several else document.get("metric"), path)
    if len(several) > 1:
        yield Note("/metrics", "a study optimises one metric: the first is taken")
    if not metric:
        yield Note("/metric", "is left out: a study needs one; add `objective: {metric: ..., direction: ...}`")
        return
    direction = metric.get("goal", "minimize")
    if direction not in ("maximize", "minimize"):
        raise NotImportable(inside(path, "goal"), f"must be `maximize` or `minimize`, not {direction!r}: mend it")
    yield Goal(inside(path, "name"), text(metric.get("name"), inside(path, "name")), direction)
    if metric.get("target") is not None:
        yield Part("budget", {"target": number(metric["target"], inside(path, "target"))})
    for key in ("impute", "impute_while_running"):
        if key in metric:
            yield Note(inside(path, key), "a trial that fails has no value here: left out")
    yield from unknown(metric, ("name", "goal", "target", "impute", "impute_while_running"), path)


def _parameters(parameters: Mapping[str, Any], path: str, prefix: str) -> Pieces:
    for name, item in parameters.items():
        place = inside(path, name)
        parameter = mapping(item, place)
        yield from unknown(parameter, _PARAMETER, place)
        if "parameters" in parameter:
            nested = mapping(parameter["parameters"], inside(place, "parameters"))
            yield from _parameters(nested, inside(place, "parameters"), f"{prefix}{name}.")
        else:
            yield Found(place, prefix + name, (yield from _parameter(parameter, place)))


def _parameter(parameter: Mapping[str, Any], path: str) -> Generator[Note, None, dict[str, Any]]:
    """A parameter of any distribution; one that is not named follows from the keys that are there."""
    distribution = parameter.get("distribution") or _implied(parameter, path)
    match distribution:
        case "constant":
            return constant(parameter.get("value"))
        case "categorical" | "categorical_w_probabilities":
            if "probabilities" in parameter:
                yield Note(inside(path, "probabilities"), "all choices are as likely here: left out")
            return (yield from choices(path, list(sequence(parameter.get("values"), inside(path, "values")))))
        case "normal" | "q_normal" | "log_normal" | "q_log_normal" | "beta" | "q_beta":
            return (yield from _bell(distribution, parameter, path))
        case (
            "uniform" | "q_uniform" | "int_uniform" | "log_uniform" | "q_log_uniform" | "inv_log_uniform"
            | "log_uniform_values" | "q_log_uniform_values" | "inv_log_uniform_values"
        ):  # fmt: skip
            low, high = _ends(distribution, parameter, path)
            log, step = "log" in distribution, _quantum(distribution, parameter, path)
            return (yield from _quantised(path, low, high, log=log, step=step, whole=distribution == "int_uniform"))
        case _:
            raise NotImportable(inside(path, "distribution"), f"{distribution!r} is none that a sweep can have: mend it")


def _implied(parameter: Mapping[str, Any], path: str) -> str:
    if "values" in parameter:
        return "categorical"
    if "value" in parameter:
        return "constant"
    if "min" not in parameter or "max" not in parameter:
        raise NotImportable(path, "needs `value`, `values`, or `min` and `max`: add them")
    whole_ends = all(isinstance(parameter[end], int) for end in ("min", "max"))
    return "int_uniform" if whole_ends else "uniform"


def _ends(distribution: str, parameter: Mapping[str, Any], path: str) -> tuple[float, float]:
    """The lowest and the highest value; some distributions give their logarithms."""
    low, high = (number(parameter.get(end), inside(path, end)) for end in ("min", "max"))
    try:
        match distribution:
            case "log_uniform" | "q_log_uniform":
                return _power(low), _power(high)
            case "inv_log_uniform":
                return _power(-high), _power(-low)
            case _:
                return low, high
    except OverflowError as error:
        raise NotImportable(
            path, f"`min` and `max` of {distribution} are exponents, and these are too large: mend them"
        ) from error


def _power(exponent: float) -> float:
    """The number that has this logarithm, as exact as people write those."""
    return float(f"{math.exp(exponent):.6g}")


def _quantum(distribution: str, parameter: Mapping[str, Any], path: str) -> float | None:
    return number(parameter.get("q", 1), inside(path, "q")) if distribution.startswith("q_") else None


def _quantised(
    path: str, low: float, high: float, *, log: bool, step: float | None, whole: bool = False
) -> Generator[Note, None, dict[str, Any]]:
    """The multiples of the step; where it is a whole number, they are whole numbers."""
    if step is not None and step > 0:
        if not math.isfinite(high / step) or not math.isfinite(low / step):
            raise NotImportable(path, f"the step of {step:g} is too small for the range: make it larger")
        low, high = (float(f"{round(end / step) * step:.12g}") for end in (low, high))
        whole = step == int(step) and not (log and low < 1)
    return (yield from interval(path, low, high, log=log, step=step, whole=whole))


def _bell(distribution: str, parameter: Mapping[str, Any], path: str) -> Generator[Note, None, dict[str, Any]]:
    """A distribution that is not even: here every value of a range is as likely."""
    log = "log" in distribution
    if distribution.endswith("beta"):
        low, high = 0.0, 1.0
    else:
        mean, spread = (
            number(parameter.get("mu", 0), inside(path, "mu")),
            number(parameter.get("sigma", 1), inside(path, "sigma")),
        )
        low, high = mean - _DEVIATIONS * spread, mean + _DEVIATIONS * spread
        if log:
            low, high = _ends("log_uniform", {"min": low, "max": high}, path)
        low, high = (float(f"{end:.6g}") for end in (low, high))
    said = "log-uniform" if log else "uniform"
    yield Note(
        inside(path, "distribution"),
        f"`{distribution}` is not drawn here: changed to {said} from {low:g} to {high:g}; set the range that you want",
    )
    return (yield from _quantised(path, low, high, log=log, step=_quantum(distribution, parameter, path)))


def _strategy(document: Mapping[str, Any]) -> Pieces:
    method = document["method"]
    sampler = _SAMPLERS.get(method) if isinstance(method, str) else None
    if sampler is None:
        yield Note("/method", f"{method!r} is not known here: changed to `random`")
        sampler = "random"
    stopping = mapping(document.get("early_terminate"), "/early_terminate")
    if stopping and sampler == "grid":
        yield Note(
            "/early_terminate", "a grid here trains every trial to its end: left out; `hyperband` would stop the worse ones"
        )
    if not stopping or sampler == "grid":
        yield sampled(sampler)
    elif stopping.get("type") != "hyperband":
        yield Note("/early_terminate/type", f"{stopping.get('type')!r} is not known here: left out")
        yield sampled(sampler)
    else:
        if sampler == "gp":
            yield Note("/method", "hyperband proposes with `tpe` here, not with a Gaussian process: changed")
        yield from _hyperband(document, stopping, "tpe" if sampler == "gp" else "random")


def _hyperband(document: Mapping[str, Any], stopping: Mapping[str, Any], sampler: str) -> Pieces:
    path = "/early_terminate"
    factor = number(stopping.get("eta", 3), inside(path, "eta"))
    if factor <= 1:
        raise NotImportable(inside(path, "eta"), "must be above 1: mend it")
    longest = stopping.get("max_iter")
    if longest is not None:
        longest = whole(longest, inside(path, "max_iter"), 1)
        yield from between(longest, 1, 1000, inside(path, "max_iter"), "epochs")
    has_epochs = any(key_of(name) == "epochs" for name in mapping(document["parameters"], "/parameters"))
    if longest is not None and not has_epochs:
        yield Part("trainer", {"epochs": nearest(longest, 1, 1000)})
    if longest is not None and "min_iter" not in stopping:
        brackets = whole(stopping.get("s"), inside(path, "s"))
        least = lowest_rung(longest, factor, brackets)
    else:
        least = whole(stopping.get("min_iter"), inside(path, "min_iter"), 1)
    if longest is None and not has_epochs:
        yield Note(inside(path, "max_iter"), "is left out: set the trainer's `epochs`, which is how far the best trials train")
    if "strict" in stopping:
        yield Note(inside(path, "strict"), "of a rung the best part goes on here, always: left out")
    yield from hyperband(path, mode="async", factor=factor, least=least, sampler=sampler)
    yield from unknown(stopping, ("type", "min_iter", "max_iter", "s", "eta", "strict"), path)
