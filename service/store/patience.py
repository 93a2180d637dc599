"""A store that is asked again for as long as its database is away: what was decided is held until it is written."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from service.domain.errors import StoreAway
from service.domain.ports import Store

_LOG = logging.getLogger("tuneyard.store")
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0

T = TypeVar("T")


def insist(call: Callable[[], T], wait: Callable[[float], None], back: Callable[[], None] = lambda: None) -> T:
    """What `call` answers, once the database does; `wait` passes some seconds, and `back` comes before it is asked again.

    Raises whatever else either of them raises.
    """
    pause = 0.0
    while True:
        try:
            if pause:
                back()
            return call()
        except StoreAway as error:
            if not pause:
                _LOG.warning("waiting for the database: %s", error.cause)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2 or _FIRST_PAUSE_SECONDS)
        wait(pause)


def patient(store: Store, wait: Callable[[float], None], back: Callable[[], None]) -> Store:
    """The same store for one study's driver: `back` makes sure, after the database was away, that the study is still its own."""

    def port(each: T) -> T:
        return cast("T", _Insisting(each, wait, back))

    return replace(
        store, studies=port(store.studies), trials=port(store.trials), events=port(store.events), shares=port(store.shares)
    )


class _Insisting:
    """A port, each method of which waits for the database."""

    def __init__(self, port: object, wait: Callable[[float], None], back: Callable[[], None]) -> None:
        self._port = port
        self._wait = wait
        self._back = back

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        return lambda *arguments, **named: insist(lambda: method(*arguments, **named), self._wait, self._back)
