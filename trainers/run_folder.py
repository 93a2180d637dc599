"""What a training by itself writes: `reports.jsonl`, `best/`, `analysis.json`, `test.json`, and `checkpoint/` to go on from."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainers.contract import Report, Trainer


class AnotherRunError(Exception):
    """The folder holds a run of another configuration; the message says what to do."""


class RunFolder:
    """What a run writes. A kill at any moment leaves each part as it was before or as it is after."""

    def __init__(self, out: Path, run: Mapping[str, Any]) -> None:
        self.out = out
        self._run = dict(run)

    @property
    def state(self) -> Path | None:
        """What the trainer loads, where there is something to go on from."""
        folder = self.out / "checkpoint" / "state"
        return folder if folder.is_dir() else None

    def clear(self) -> None:
        """Forget an earlier run; what was prepared of the rows stays."""
        for name in ("checkpoint", "best", ".checkpoint.old", ".best.old"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in ("reports.jsonl", "analysis.json", "test.json"):
            (self.out / name).unlink(missing_ok=True)

    def known(self) -> list[Report]:
        """The reports of an earlier run. Raises AnotherRunError when it was another one."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ("checkpoint", "best"):
            _recover(self.out / name)
        if self.state is None:
            return []
        said = json.loads((self.out / "checkpoint" / "run.json").read_bytes())
        if said["run"] != self._run:
            raise AnotherRunError(
                f"{self.out} holds a run of another configuration or metric: name another folder, or start over with --fresh"
            )
        reports = [Report(**report) for report in said["reports"]]
        self._write_reports(reports)
        return reports

    def keep_best(self, trainer: Trainer) -> None:
        """Export what the last report was measured on."""
        _replace(self.out / "best", trainer.export)
        (self.out / "analysis.json").write_text(json.dumps(trainer.analysis()))

    def keep_test(self, metrics: Mapping[str, float]) -> None:
        """Write how the best weights do on the test rows."""
        (self.out / "test.json").write_text(json.dumps(dict(metrics), indent=2) + "\n")

    def save(self, reports: Sequence[Report], trainer: Trainer) -> None:
        """Write what goes on after the last report, or in the middle of an epoch."""

        def write(folder: Path) -> None:
            (folder / "state").mkdir()
            trainer.save(folder / "state")
            said = {"run": self._run, "reports": [_plain(report) for report in reports]}
            (folder / "run.json").write_text(json.dumps(said))

        _replace(self.out / "checkpoint", write)
        self._write_reports(reports)

    def _write_reports(self, reports: Sequence[Report]) -> None:
        (self.out / "reports.jsonl").write_text("".join(json.dumps(_plain(report)) + "\n" for report in reports))


def _replace(folder: Path, write: Callable[[Path], None]) -> None:
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Put back what a kill between the two renames of `_replace` left aside."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _plain(report: Report) -> dict[str, Any]:
    kept = {**asdict(report), "metrics": dict(report.metrics)}
    del kept["gpu_memory"]  # it says something of the machine
    return kept
