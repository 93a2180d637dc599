"""Following a study until it ends: bars on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING

from service.cli.board import Board, BoardView, changes
from service.cli.exits import ExitCode
from service.cli.output import console, is_terminal, say
from service.client.errors import ServiceUnreachable, WaitedTooLong

if TYPE_CHECKING:
    from service.api.schemas import EventView, StudyView
    from service.client import Client

_TICK_SECONDS = 0.25
_ONE_BY_ONE = 10
"""Up to this many changed trials are asked for singly; more of them by the page."""


@dataclass(frozen=True)
class _Connection:
    """Whether the service answers, and why not."""

    away: str | None


_News = Queue["EventView | _Connection | Exception | None"]


def watch(client: "Client", study_id: str, *, timeout_seconds: float | None = None) -> "StudyView":
    """Show a study on stderr until it ends; returns it as it ended. Raises `WaitedTooLong` and the client's errors."""
    show = _live if is_terminal(sys.stderr) else _log
    with closing(boards(client, study_id, timeout_seconds=timeout_seconds)) as stream:
        return show(client, stream).study


def exit_code(study: "StudyView") -> ExitCode:
    """What a watched study's end means to a script: stopped by request is as good as completed."""
    return ExitCode.OK if study.state in {"completed", "stopped"} else ExitCode.NOT_COMPLETED


def boards(
    client: "Client",
    study_id: str,
    *,
    timeout_seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Board, None, None]:
    """The study now, then again after everything that happens to it, to its end.

    Events only say what to ask for again: what is shown is what the API holds, whatever was missed or came twice.
    """
    board = Board(client.study(study_id)).with_trials(client.trials(study_id))
    yield board
    if board.study.ended_at is not None:
        return
    end = None if timeout_seconds is None else clock() + timeout_seconds
    news: _News = Queue()
    Thread(target=_listen, args=(client, study_id, news), daemon=True).start()
    listening, pending = True, list["EventView"]()
    while (listening or pending) and board.study.ended_at is None:
        if end is not None and clock() >= end:
            raise WaitedTooLong(study_id, timeout_seconds or 0.0)
        batch = _drain(news)
        listening = listening and None not in batch
        found = [item for item in batch if isinstance(item, _Connection)]
        if found and found[-1].away != board.away:
            board = replace(board, away=found[-1].away)
            yield board
        pending += [item for item in batch if item is not None and not isinstance(item, _Connection)]
        try:
            board = _refreshed(client, board, pending)
        except ServiceUnreachable:
            if not listening:
                raise
            continue  # the event stream takes up the connection again, or says that it cannot
        if pending:
            yield board
        pending = []
    yield Board(client.study(study_id)).with_trials(client.trials(study_id))


def _listen(client: "Client", study_id: str, news: _News) -> None:
    """Put every event into the queue, then None; an error too, for the one who shows it."""
    try:
        for event in client.events(study_id, on_connection=lambda away: news.put(_Connection(away))):
            news.put(event)
        news.put(None)
    except Exception as error:  # raised again where the queue is read
        news.put(error)


def _drain(news: _News) -> "list[EventView | _Connection | None]":
    """Everything in the queue, after waiting a tick for the first."""
    found: list[EventView | _Connection | None] = []
    wait = True
    while True:
        try:
            item = news.get(timeout=_TICK_SECONDS) if wait else news.get_nowait()
        except Empty:
            return found
        if isinstance(item, Exception):
            raise item
        wait = False
        found.append(item)


def _refreshed(client: "Client", board: Board, events: "list[EventView]") -> Board:
    numbers = {event.trial for event in events if event.trial is not None}
    # MLflow gives a study its page a moment after it started, without an event of ours.
    if any(event.trial is None for event in events) or (events and board.study.links.mlflow is None):
        board = board.with_study(client.study(board.study.id))
    if len(numbers) > _ONE_BY_ONE:
        return board.with_trials(client.trials(board.study.id))
    return board.with_trials(client.trial(board.study.id, number) for number in sorted(numbers))


def _live(client: "Client", stream: Iterator[Board]) -> Board:
    from rich.live import Live

    board = next(stream)
    view = BoardView(board, client.mlflow_address)
    with Live(view, console=console(sys.stderr), refresh_per_second=4):
        for view.board in stream:
            pass
    return view.board


def _log(client: "Client", stream: Iterator[Board]) -> Board:
    board = next(stream)
    say(f"study {board.study.id} {board.study.state}")
    before, mlflow = Board(board.study), None
    for after in chain([board], stream):
        if mlflow is None and (mlflow := client.mlflow_address(after.study)):
            say(f"mlflow {mlflow}")
        for line in changes(before, after):
            say(line)
        before = after
    return before
