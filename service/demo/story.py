"""The demo from its first line to its last."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.output import console as console_on
from service.cli.output import is_terminal
from service.cli.trials import pull_progress
from service.cli.watch import exit_code, watch
from service.cli.words import duration, number
from service.client import Client
from service.client.pull import check_target
from service.demo import process
from service.demo.errors import DemoFailed
from service.domain.errors import TuneyardError
from service.domain.sizes import size
from service.domain.study import StudyReason
from service.domain.trial import TrialState

if TYPE_CHECKING:
    from service.api.schemas import StudyView

STUDY = Path(__file__).with_name("study.yaml")
_LOADING = 'AutoModelForSequenceClassification.from_pretrained("{folder}")'
_SHOWN = 6
_EXPERIMENT_SECONDS = 20.0
_INTERRUPTED = 130


@dataclass(frozen=True)
class Places:
    """Where the demo reads and writes, from the folder it was started in."""

    home: Path
    best: Path

    @property
    def log(self) -> Path:
        return self.home / "logs" / "demo.log"


def main() -> int:
    """Run the demo in the current folder; returns its exit code."""
    places = Places(home=Path(".tuneyard/demo").absolute(), best=Path("best"))
    out = console_on()
    for asked in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, _interrupt)
    try:
        _tell(places, out, stay=is_terminal(sys.stdout) and not os.environ.get("CI"))
    except KeyboardInterrupt:
        out.print("Stopped before its end.")
        return _INTERRUPTED
    except (TuneyardError, OSError) as error:
        out.print(f"\nThe demo failed: {error}", style="red", markup=False)
        log = process.tail(places.log)
        if log:
            out.print(f"The end of {places.log}:\n{log}", style="dim", markup=False)
        return 1
    return 0


def _tell(places: Places, out: Console, *, stay: bool) -> None:
    """Everything in order; the service is stopped on the way out, however that is."""
    begun = time.monotonic()
    check_target(places.best.absolute(), force=False)
    out.print("Tuneyard demo", style="bold")
    with process.running(process.serve_command(places.home, process.pick_port()), places.log) as service:
        try:
            url = _wait(service, places, out)
            with Client(url, (places.home / "token").read_text().strip()) as client:
                path = _search_and_show(client, places, out)
                out.print(f"\nThe whole demo took {duration(time.monotonic() - begun)}.")
                if stay:
                    keep_serving(client, service, path, out)
        finally:
            if service.poll() is None:
                out.print("\nStopping the service ...", style="dim")


def _wait(service: subprocess.Popen[bytes], places: Places, out: Console) -> str:
    begun = time.monotonic()
    with _busy(out, f"Starting the service (SQLite, Ray, MLflow) in {_near(places.home)} ..."):
        url = process.wait_until_ready(service, places.home, tick=lambda: time.sleep(0.2))
    out.print(f"The service is ready at {url} after {duration(time.monotonic() - begun)}; its log: {_near(places.log)}")
    return url


def _search_and_show(client: Client, places: Places, out: Console) -> str:
    """Returns where in MLflow the study is."""
    study = client.apply(STUDY)
    out.print(Text.assemble(f"POSTed {_near(STUDY)}: study ", (study.id, "bold")))
    with _child([sys.executable, "-m", "service.demo.held_out", str(places.home)], nice=10) as held_out:
        path = print_mlflow(client, study.id, out)
        ended = watch(client, study.id)
        if exit_code(ended):
            raise DemoFailed(f"study {ended.id} ended {ended.state} ({ended.reason}): {ended.detail or 'see the log'}")
        _pull(client, ended, places, out)
        _print_predictions(places.best, _answer(held_out), out)
        if (cut := cut_short(ended)) is not None:
            out.print(cut, style="yellow", markup=False, highlight=False)
    return path


def cut_short(study: "StudyView") -> str | None:
    """What the study's time did not suffice for; None where it did."""
    trials, clock = study.progress.trials, study.progress.wall_clock_seconds
    completed = study.trials.get(TrialState.COMPLETED, 0)
    if study.reason is not StudyReason.BUDGET_SPENT or not trials.limit or not clock.limit:
        return None
    if trials.spent >= trials.limit and completed:
        return None
    ran = f"{trials.spent:g} of its {trials.limit:g} trials ran, {completed or 'none'} of them to the last epoch"
    return (
        f"The search was cut short: it may take {duration(clock.limit)}, in which {ran}. It gets further on a machine that has "
        "nothing else to do."
    )


def print_mlflow(client: Client, study_id: str, out: Console) -> str:
    """The study's address in MLflow, and a link that logs a browser in; the experiment is made a moment after the POST."""
    end = time.monotonic() + _EXPERIMENT_SECONDS
    while (path := client.study(study_id).links.mlflow) is None and time.monotonic() < end:
        time.sleep(0.3)
    path = path or "/mlflow/"
    _print_address("MLflow", client.url + path, out)
    _print_login(client, path, out)
    out.print()
    return path


def _print_login(client: Client, path: str, out: Console) -> None:
    _print_address("Log in to it, once, within 5 minutes", client.login_link(path), out)


def _print_address(what: str, address: str, out: Console) -> None:
    """An address on a line of its own and in one piece, however long, so that a terminal makes a link of the whole of it."""
    out.print(f"{what}:", markup=False)
    out.print(Text(address, "bold"), soft_wrap=True)


def _pull(client: Client, study: "StudyView", places: Places, out: Console) -> None:
    manifest = client.manifest(study.id)
    total = sum(file.bytes for file in manifest.files)
    with pull_progress(total) as progress:
        client.pull(study.id, places.best, manifest=manifest, progress=progress)
    pulled = f"trial {manifest.trial}, report {manifest.report}, {size(total)}, verified"
    out.print(f"\nPulled the best checkpoint ({pulled}) into ./best/")


def _print_predictions(best: Path, rows: Mapping[str, Any], out: Console) -> None:
    """`rows` is what `service.demo.held_out` answered."""
    line = _LOADING.format(folder=f"./{best}")
    out.print(Text(f">>> model = {line}", style="cyan"))
    script = str(Path(__file__).with_name("predict.py"))
    command = [sys.executable, script, f"./{best}", rows["test"], rows["text"], rows["label"], str(_SHOWN)]
    with _busy(out, "Predicting the held-out test rows ..."), _child(command) as child:
        answer = _answer(child)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("held-out sentence", ratio=1)
    for heading in ("library", "predicted", "p", ""):
        table.add_column(heading, no_wrap=True)
    for sample in answer["samples"]:
        right = sample["label"] == sample["predicted"]
        mark = Text("✓", style="green") if right else Text("✗", style="red")
        table.add_row(Text(_cut(sample["text"])), sample["label"], sample["predicted"], f"{sample['probability']:.2f}", mark)
    out.print(table)
    out.print()
    out.print(Text.assemble(f"Test accuracy on {answer['rows']} held-out rows   ", (number(answer["accuracy"]), "bold")))
    out.print(f"Bag of words and logistic regression{'':<{len(str(answer['rows']))}}   {number(rows['accuracy'])}")
    points = 100 * _by_chance(answer["accuracy"], answer["rows"])
    out.print(f"On so few rows the two may be up to {points:.0f} points apart by chance.", style="dim", highlight=False)


def _by_chance(accuracy: float, rows: int) -> float:
    """How far apart two models that are as good as each other may come out on so many rows: two standard errors."""
    return 2 * math.sqrt(2 * accuracy * (1 - accuracy) / rows)


def keep_serving(client: Client, service: subprocess.Popen[bytes], path: str, out: Console) -> None:
    """Until Ctrl-C, so that one can look around. `path` is the study's in MLflow."""
    out.print("\nThe service keeps running so that you can look around; Ctrl-C stops it.", style="bold")
    _print_login(client, path, out)
    out.print("Or in another terminal:")
    out.print(Text(f"{command_line()} --home .tuneyard/demo study ls", "bold"), soft_wrap=True)
    try:
        code = service.wait()
    except KeyboardInterrupt:
        return
    raise DemoFailed(f"the service ended by itself with code {code}")


def command_line(python: Path = Path(sys.executable)) -> str:
    """How to call `tuneyard` from here: as the one that was installed beside this Python."""
    beside = python.with_name("tuneyard")
    return _near(beside).removeprefix("./") if beside.exists() else "tuneyard"


@contextmanager
def _child(command: list[str], nice: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose stdout we read; it does not outlive us."""
    polite = ["nice", "-n", str(nice), *command] if nice else command
    with subprocess.Popen(  # noqa: S603 - our own interpreter and script
        polite,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=process.child_environment(),
        start_new_session=True,
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _answer(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The JSON object a child wrote; raises `DemoFailed` with what it said when it failed."""
    output, errors = child.communicate()
    if child.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-5:]
        raise DemoFailed("a child process failed:\n" + "\n".join(last))
    answer: dict[str, Any] = json.loads(output.decode().strip().splitlines()[-1])
    return answer


@contextmanager
def _busy(out: Console, message: str) -> Iterator[None]:
    """A spinner on a terminal, a line elsewhere."""
    if out.is_terminal:
        with out.status(message):
            yield
    else:
        out.print(message)
        yield


def _near(path: Path) -> str:
    """A path from here, where it is below."""
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def _cut(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
