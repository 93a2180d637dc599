"""One training, without the service: `python -m trainers text-classification config.yaml -o out`."""

import argparse
import json
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

import yaml
from pydantic import ValidationError

from trainers.configs import CONFIGS, TrainerConfig, metrics_of
from trainers.contract import Goal, Interruption, Report, Trainer, TrainerError, TrialContext, make_trainer
from trainers.run_folder import AnotherRunError, RunFolder

_HELP = """\
Train one model as a configuration says, and keep its best weights.

KIND is {kinds}.
The configuration is what a study's definition has under `trainer:`, as YAML. `model` is a folder or a Hugging Face name, which
is downloaded once. The rows (`data.train`, `data.validation`, `data.test`) are files, or names that a key `sources` gives files
for. All paths start at the configuration's own folder. Without anything else:

    model: sentence-transformers/all-MiniLM-L6-v2
    data: {train: train.csv, test: test.csv, text: text, label: label}
    epochs: 3

Ctrl-C pauses, in the middle of an epoch too. The same command goes on from there, and after a crash from the last report.
"""
_KINDS = ", ".join(sorted(CONFIGS))
_WRITES = """\
writes:
  reports.jsonl   a line for each report: how far, and the metrics
  best/           the weights of the best report; `from_pretrained` loads them
  analysis.json   where the validation rows of the best report went wrong
  test.json       metrics of the best weights on the test rows, at the end
  checkpoint/     what the same command goes on from
"""
_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")
_LESS_IS_BETTER = frozenset({"loss", "perplexity", "rmse", "mae"})
_PAUSED = 130
"""What a shell expects of a command that Ctrl-C ended."""


class RefusedError(Exception):
    """What was asked for cannot be done; the message says what to change."""


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as everybody means it; version 1.1 wants a point in it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class _Asked:
    """A configuration, with files for its names."""

    config: TrainerConfig
    sources: Mapping[str, Path]
    models: Mapping[str, Path]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (RefusedError, AnotherRunError, TrainerError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainers",
        description=_HELP.replace("{kinds}", _KINDS),
        epilog=_WRITES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=sorted(CONFIGS), metavar="KIND", help="the task")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the configuration, as YAML")
    parser.add_argument("-o", "--out", type=Path, default=Path("out"), metavar="FOLDER", help="where to write to (%(default)s)")
    parser.add_argument("--metric", default="validation/loss", help="what the best report is best by (%(default)s)")
    parser.add_argument("--direction", choices=["maximize", "minimize"], help="left out, what suits the metric")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="start over: what an earlier run wrote is deleted")
    return parser


def _run(options: argparse.Namespace) -> int:
    asked = _read(options.kind, options.config)
    metrics = metrics_of(asked.config)
    if options.metric not in metrics:
        raise RefusedError(f"there is no metric {options.metric!r}: use one of {', '.join(sorted(metrics))}")
    suits: Literal["maximize", "minimize"] = "minimize" if options.metric.rpartition("/")[2] in _LESS_IS_BETTER else "maximize"
    goal = Goal(options.metric, options.direction or suits)
    folder = RunFolder(options.out, {"configuration": asked.config.model_dump(mode="json"), "goal": asdict(goal)})
    if options.fresh:
        folder.clear()
    known = folder.known()
    with _interruption() as interruption:
        context = TrialContext(
            cache=options.out / "cache",
            sources=asked.sources,
            models=asked.models,
            threads=options.threads,
            device=options.device,
            goal=goal,
            interruption=interruption,
        )
        return _train(make_trainer(asked.config, context), folder, known, goal)


def _train(trainer: Trainer, folder: RunFolder, known: list[Report], goal: Goal) -> int:
    table = _Table(goal)
    if folder.state is not None:
        trainer.load(folder.state)
        _say(f"Going on from {folder.out / 'checkpoint'}, after {len(known)} report{'' if len(known) == 1 else 's'}.")
    best = _best(known, goal)
    for report in known:
        table.row(report, is_best=report is best)
    for report in trainer.reports():
        if not math.isfinite(report.metrics[goal.metric]):
            detail = f"`{goal.metric}` is {report.metrics[goal.metric]}: lower the learning rate."
            raise TrainerError("diverged", detail)
        known.append(report)
        is_best = report is _best(known, goal)
        if is_best:
            folder.keep_best(trainer)
        folder.save(known, trainer)
        table.row(report, is_best=is_best)
    if not (known and known[-1].last):
        folder.save(known, trainer)
        _say(f"Paused after report {len(known)}: the same command goes on from here.")
        return _PAUSED
    best = _best(known, goal)
    assert best is not None  # noqa: S101 - there is a last one
    _say(f"Report {best.number} is the best by {goal.metric}: {folder.out / 'best'}")
    tested = trainer.test(folder.out / "best")
    if tested:
        folder.keep_test(tested)
        _say("  ".join(f"{name} {_number(value)}" for name, value in sorted(tested.items())))
    return 0


def _best(reports: Sequence[Report], goal: Goal) -> Report | None:
    """The best report, the earlier of equals."""
    best = None
    for report in reports:
        if best is None or goal.gain(report.metrics[goal.metric], best.metrics[goal.metric]) > 0:
            best = report
    return best


@contextmanager
def _interruption() -> Iterator[Callable[[], Interruption | None]]:
    """Whether Ctrl-C was pressed; a second time it ends everything at once."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("Pausing after this step; Ctrl-C again ends at once.\n")

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: Interruption.PAUSE if pressed else None
    finally:
        signal.signal(signal.SIGINT, before)


def _read(kind: str, path: Path) -> _Asked:
    """Raises RefusedError for what cannot be read or is no configuration."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe one
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise RefusedError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RefusedError(f"{path} holds no configuration: write `model:`, `data:` and what differs from the defaults")
    sources = document.pop("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(part, str) for item in sources.items() for part in item):
        raise RefusedError(f"{path}: `sources` has to be names with the paths of their files")
    if document.setdefault("kind", kind) != kind:
        raise RefusedError(f"{path} is for {document['kind']!r}, not for {kind}: name that kind, or take `kind` out")
    try:
        config = CONFIGS[kind].model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        _refuse(path, error)
    beside = path.parent
    named = {} if config.data is None else config.data.named
    files = {name: beside / sources.get(name, name) for name in named.values()}
    for split, name in named.items():
        if not files[name].is_file():
            raise RefusedError(f"`data.{split}` is {name!r}, but there is no file {files[name]}: name one that is there")
    return _Asked(config, files, {} if config.model is None else {config.model: _model(config.model, beside)})


def _refuse(path: Path, error: ValidationError) -> NoReturn:
    """One line for each thing that is wrong, with its field."""
    lines = [
        " ".join([*([f"`{'.'.join(map(str, one['loc']))}`:"] if one["loc"] else []), one["msg"].removeprefix("Value error, ")])
        for one in error.errors()
    ]
    raise RefusedError(f"{path} cannot be used.\n" + "\n".join(f"  {line}" for line in lines)) from error


def _model(name: str, beside: Path) -> Path:
    """The model's folder; one that is not there is looked for at Hugging Face."""
    for folder in (beside / name, Path(name)):
        if folder.is_dir():
            return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - where there is no folder
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - the same

    try:
        # Folders hold other formats and other models of the same repository.
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES), ignore_patterns=["*/*"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise RefusedError(f"`model` is {name!r}, which is no folder and cannot be downloaded: {error}") from error


class _Table:
    """A line for each report: columns in a terminal, the best so far in bold; tabs where it goes into a file or a pipe."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._names: list[str] = []
        self._is_terminal = sys.stdout.isatty()

    def row(self, report: Report, *, is_best: bool) -> None:
        if not self._names:
            others = sorted(set(report.metrics) - {self._goal.metric})
            self._names = [self._goal.metric, *others]
            self._write(["report", "epoch", "step", *map(self._title, self._names), "seconds"], is_bold=False)
        values = [_number(report.metrics[name]) for name in self._names]
        place = [str(report.number), f"{report.epoch:.2f}", str(report.step)]
        self._write([*place, *values, f"{report.seconds:.1f}"], is_bold=is_best)

    def _title(self, name: str) -> str:
        return name.removeprefix("validation/") if self._is_terminal else name

    def _write(self, cells: Sequence[str], *, is_bold: bool) -> None:
        if not self._is_terminal:
            _say("\t".join(cells))
            return
        widths = [6, 7, 7, *(max(10, len(self._title(name))) for name in self._names), 8]
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        _say(f"\033[1m{line}\033[0m" if is_bold else line)


def _number(value: float) -> str:
    return f"{value:.5g}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
