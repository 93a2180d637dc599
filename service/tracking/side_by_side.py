"""A few things at a time, most of which is waiting for answers."""

import threading
from collections.abc import Callable, Sequence

from service.domain.trial import Trial

_MANY, _AT_ONCE = 20, 3
"""Trials from which on, and how many of them, are done at once."""


def for_each(trials: Sequence[Trial], act: Callable[[Trial], None]) -> None:
    """Do it for each, where there are many a few at a time. Begins no other once one has failed, and raises the first error.

    The threads are no reason for the process to stay, as those of a pool would be with all that is left to do.
    """
    if len(trials) < _MANY:
        for trial in trials:
            act(trial)
        return
    left, turn = iter(trials), threading.Lock()
    errors: list[Exception] = []

    def work() -> None:
        while not errors:
            with turn:
                trial = next(left, None)
            if trial is None:
                return
            try:
                act(trial)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, name="mirror", daemon=True) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
