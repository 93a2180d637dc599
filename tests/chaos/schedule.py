"""What is killed and when: drawn from a seed, so that a run can be had again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.chaos.kills import Kind


class Moment(StrEnum):
    """In the middle of what a process is to be killed."""

    ANY = "any"
    SAVE = "save"
    STORE_WRITE = "store write"
    MIRROR_WRITE = "mirror write"


_MOMENTS: Mapping[Kind, Sequence[Moment]] = {
    Kind.API: (Moment.STORE_WRITE, Moment.ANY),
    Kind.CONTROLLER: (Moment.MIRROR_WRITE, Moment.STORE_WRITE, Moment.ANY),
    Kind.DRIVER: (Moment.STORE_WRITE, Moment.SAVE, Moment.ANY),
    Kind.WORKER: (Moment.SAVE, Moment.ANY),
    Kind.MLFLOW: (Moment.MIRROR_WRITE, Moment.ANY),
    Kind.EVERYTHING: (Moment.SAVE, Moment.STORE_WRITE, Moment.MIRROR_WRITE),
}
"""Moments that are aimed at, in turn; for all others any will do."""

_OF_A_HUNDRED = {
    Kind.WORKER: 24, Kind.DRIVER: 20, Kind.CONTROLLER: 12, Kind.API: 8, Kind.MLFLOW: 8,
    Kind.RAYLET: 6, Kind.GCS: 6, Kind.RAY: 5, Kind.SERVE: 5, Kind.EVERYTHING: 6,
}  # fmt: skip

_IN_PAUSES = frozenset({Kind.CONTROLLER, Kind.DRIVER, Kind.WORKER, Kind.RAY, Kind.EVERYTHING})
"""Kinds every third of which hits a study on its way to a pause."""

_CLUSTER = (Kind.RAYLET, Kind.GCS, Kind.RAY)
_MANY = 20
"""Kills from which there is time for all of them."""


@dataclass(frozen=True)
class Shot:
    """One kill: `choice` is what is left to chance of it, from 0 to 1, and so is `pause_seconds` before it.

    `is_in_a_pause` says that a user pauses a study just before, at its trials' next reports or at once, and resumes it after.
    """

    kind: Kind
    moment: Moment
    choice: float
    pause_seconds: float
    is_in_a_pause: bool = False


def schedule(seed: int, kills: int) -> list[Shot]:
    """So many kills in an order of chance, every kind among them in proportion.

    Few kills have each kind once before any twice, and of the three ways in which a cluster ends one: all take their time.
    """
    random = Random(seed)  # noqa: S311 - a schedule, not a secret
    left_out = random.sample(_CLUSTER, len(_CLUSTER) - 1) if kills < _MANY else []
    shares = {kind: share for kind, share in _OF_A_HUNDRED.items() if kind not in left_out}
    kinds = list(shares)[:kills]
    while len(kinds) < kills:
        kinds.append(min(shares, key=lambda kind: kinds.count(kind) / shares[kind]))
    random.shuffle(kinds)
    counted = dict.fromkeys(Kind, 0)
    shots = []
    for kind in kinds:
        moments = _MOMENTS.get(kind, (Moment.ANY,))
        moment = moments[counted[kind] % len(moments)]
        counted[kind] += 1
        is_in_a_pause = kind in _IN_PAUSES and counted[kind] % 3 == 0
        shots.append(Shot(kind, moment, random.random(), random.uniform(0.5, 3.0), is_in_a_pause))
    return shots
