"""A study's share of the workers: how many of its trials may run now, and what it could use."""

from dataclasses import dataclass

from service.domain.waiting import Waiting


@dataclass(frozen=True)
class Share:
    """What the controller grants a study and what its driver asks for.

    `slots` is how many attempts may run at once; `wanted` how many could, None until a driver has said so. `lag` is what the
    study is owed, in seconds of the whole cluster: positive where it got less than its weight entitles it to. `waiting` says why
    it has fewer slots than it could use. `trials_per_gpu` is the study's when the slots were counted: they mean nothing for
    another number.
    """

    slots: int = 0
    wanted: int | None = None
    lag: float = 0.0
    waiting: Waiting | None = None
    trials_per_gpu: int = 1
