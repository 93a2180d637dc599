"""A study at a glance, for a terminal: the best trial so far, those that run, those that ended last."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.api.schemas import StudyView, TrialView
from service.cli.words import STATE_STYLES, configuration, duration, number, run_name, scalar, short_names, since, trial_state

ENDED_SHOWN = 5
"""Ended trials that are shown, the latest first."""
_BAR_COLUMNS = 12
_MOST_COLUMNS = 6
"""Parameters that get a column each; more of them share one."""
_FIXED_LINES = 10
"""Lines of the board that are not trials."""
_LIVE = ("running", "queued", "paused")


@dataclass(frozen=True)
class Board:
    """What is known of a study and its trials."""

    study: StudyView
    trials: dict[int, TrialView] = field(default_factory=dict)
    away: str | None = None
    """Why the service does not answer: this is what was known before."""

    def with_study(self, study: StudyView) -> "Board":
        return replace(self, study=study)

    def with_trials(self, trials: Iterable[TrialView]) -> "Board":
        return replace(self, trials={**self.trials, **{trial.number: trial for trial in trials}})

    @property
    def best(self) -> TrialView | None:
        """The best trial so far, the earlier of equals."""
        objective = self.study.definition.objective
        ranked = [trial for trial in self.trials.values() if trial.best_value is not None]
        return min(ranked, key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number), default=None)

    def running(self) -> list[TrialView]:
        """Trials at work now, by number."""
        return sorted((trial for trial in self.trials.values() if trial.state == "running"), key=lambda trial: trial.number)

    def ended(self) -> list[TrialView]:
        """Ended trials, the latest end first."""
        found = [trial for trial in self.trials.values() if trial.ended_at is not None]
        return sorted(found, key=lambda trial: (trial.ended_at or datetime.max.replace(tzinfo=UTC), trial.number), reverse=True)

    def count(self, *states: str) -> int:
        """Number of trials in these states."""
        return sum(trial.state in states for trial in self.trials.values())

    @property
    def names(self) -> dict[str, str]:
        """Short names of what varies."""
        return short_names(self.study.definition.space)


@dataclass
class BoardView:
    """Draws a board as it is at that moment: `rich.live.Live` asks again and again."""

    board: Board
    address: Callable[[StudyView], str | None]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(console.size.height - _FIXED_LINES, 3)
        yield draw(self.board, rows=height, now=datetime.now(UTC), mlflow=self.address(self.board.study))


def draw(board: Board, *, rows: int, now: datetime, mlflow: str | None = None) -> RenderableType:
    """The board with at most `rows` trials."""
    running = board.running()
    ended = board.ended()[: min(ENDED_SHOWN, max(rows - len(running), 1))]
    shown = running[: max(rows - len(ended), 1)]
    hidden = len(running) - len(shown)
    lines: list[RenderableType] = [_headline(board, now), _best_line(board)]
    if board.away is not None:
        lines.append(Text(_reconnecting(board.away), style="yellow"))
    if board.study.waiting:
        lines.append(Text.assemble(("waits   ", "dim"), board.study.waiting.detail, overflow="ellipsis", no_wrap=True))
    if mlflow:
        lines.append(Text.assemble(("mlflow  ", "dim"), mlflow, overflow="fold"))
    lines.append(Text())
    if shown or ended:
        lines.append(_trials(shown, ended, board.names))
    if hidden:
        lines.append(Text(f"        and {hidden} more running", style="dim"))
    lines.append(_legend(board.names))
    return Group(*lines)


def _headline(board: Board, now: datetime) -> Text:
    study = board.study
    planned = study.definition.budget.trials
    ended = len(board.ended())
    parts = [f"{ended}{f' of {planned}' if planned else ''} finished", f"{board.count('running')} running"]
    waiting = board.count("paused", "queued")
    if waiting:
        parts.append(f"{waiting} waiting")
    # Time in which it is paused does not count.
    is_held = study.state == "paused"
    took = duration(study.progress.wall_clock_seconds.spent) if is_held else since(study.started_at, study.ended_at, now)
    return Text.assemble(
        (study.id, "bold"),
        "  ",
        (trial_state(study.state, study.reason), STATE_STYLES.get(study.state, "")),
        ("  ·  " + "  ·  ".join([*parts, took]), "dim"),
    )


def _best_line(board: Board) -> Text:
    best = board.best
    if best is None:
        return Text.assemble(("best    ", "dim"), ("no report yet", "dim"))
    metric = board.study.definition.objective.metric
    return Text.assemble(
        ("best    ", "dim"),
        (number(best.best_value), "bold green"),
        f" {metric}",
        (f"  {run_name(best.number, best.repeats)}, report {best.best_report}  ", "dim"),
        configuration(best.parameters, board.names),
        overflow="ellipsis",
        no_wrap=True,
    )


def _trials(running: Sequence[TrialView], ended: Sequence[TrialView], names: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("trial", justify="right", width=5)
    separate = len(names) <= _MOST_COLUMNS
    if separate:
        for short in names.values():
            table.add_column(short, justify="right", no_wrap=True, overflow="ellipsis", max_width=18)
    else:
        table.add_column("configuration", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("reports", width=_BAR_COLUMNS + 6, no_wrap=True)
    table.add_column("last", justify="right", min_width=6, no_wrap=True)
    table.add_column("best", justify="right", min_width=6, no_wrap=True)
    table.add_column("state", min_width=9, no_wrap=True, overflow="ellipsis")
    for trial in (*running, *ended):
        values = [scalar(trial.parameters[name]) if name in trial.parameters else "" for name in names]
        table.add_row(
            str(trial.number),
            *(values if separate else [configuration(trial.parameters, names)]),
            _bar(trial),
            number(trial.value),
            number(trial.best_value),
            Text(trial_state(trial.state, trial.reason), style=STATE_STYLES.get(trial.state, "")),
            style="" if trial.state in _LIVE else "dim",
        )
    return table


def _bar(trial: TrialView) -> RenderableType:
    bar = ProgressBar(
        total=max(trial.until, 1), completed=trial.reports, width=_BAR_COLUMNS, complete_style="cyan", finished_style="green"
    )
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(bar, f"{trial.reports}/{trial.until}")
    return row


def _legend(names: dict[str, str]) -> Text:
    shortened = [f"{short} = {name}" for name, short in names.items() if short != name]
    return Text("   ".join(shortened), style="dim", overflow="fold")


def best_changed(before: Board, after: Board) -> bool:
    """Whether there is a better value than before."""
    old, new = before.best, after.best
    return new is not None and (old is None or old.best_value != new.best_value)


def changes(before: Board, after: Board) -> list[str]:
    """What happened between two boards, a line each: for a log, where nothing can be redrawn."""
    lines: list[str] = []
    if (before.away is None) != (after.away is None):
        lines.append("the service answers again" if after.away is None else _reconnecting(after.away))
    metric = after.study.definition.objective.metric
    for key, trial in sorted(after.trials.items()):
        old = before.trials.get(key)
        if old is None:
            lines.append(f"trial {key} proposed: {_full(trial)}")
        if trial.reports > (old.reports if old else 0):
            mark = "  (best so far)" if best_changed(before, after) and after.best is trial else ""
            lines.append(f"trial {key} report {trial.reports}/{trial.until}: {metric} {number(trial.value)}{mark}")
        if trial.ended_at is not None and (old is None or old.ended_at is None):
            lines.append(f"trial {key} {trial_state(trial.state, trial.reason)}: best {metric} {number(trial.best_value)}")
    if after.study.state != before.study.state:
        lines.append(f"study {after.study.id} {trial_state(after.study.state, after.study.reason)}")
    return lines


def _reconnecting(cause: str) -> str:
    return f"the service does not answer ({cause}): trying again"


def _full(trial: TrialView) -> str:
    return ", ".join(f"{name}={scalar(value)}" for name, value in trial.parameters.items())
