"""Run the studies of benchmarks/studies/ on a service that is up, over HTTP, and print what came out.

    tuneyard serve --model-root MODELS
    python -m benchmarks.studies --data DATA [NAME ...]

DATA is a folder with banking77/, snips/, wnut17/, omniglot/ and gsm8k/ as their authors publish them; MODELS holds
stories260K-hf (karpathy/tinyllamas as safetensors). Neither comes with this project.
"""

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.snips import convert
from service.client import Client

_STUDIES = Path(__file__).with_name("studies")
_SNIPS_ROWS = 2000


def main() -> int:
    """Upload, run and print; answers 1 when a study did not complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run; all of them when none is named")
    asked = parser.parse_args()
    names = asked.names or sorted(path.stem for path in _STUDIES.glob("*.yaml"))
    ended = True
    with Client() as client:
        for dataset in dict.fromkeys(name.partition("-")[0] for name in names):
            _upload(client, dataset, asked.data / dataset)
        for name in names:
            ended = _run(client, name) and ended
    return 0 if ended else 1


def _run(client: Client, name: str) -> bool:
    begun = time.monotonic()
    study = client.wait(client.apply(_STUDIES / f"{name}.yaml").id)
    best = client.best(study.id)
    reports = client.reports(study.id, best.number)
    chosen = next(report for report in reports if report.number == best.best_report)
    tested = {key: value for report in reports for key, value in report.metrics.items() if key.startswith("test/")}
    print(json.dumps({
        "study": study.id,
        "state": study.state,
        "reason": study.reason,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "trials": study.trials,
        "best": {"number": best.number, "parameters": best.parameters, "report": best.best_report},
        "validation": chosen.metrics,
        "test": tested,
    }, default=str))  # fmt: skip
    sys.stdout.flush()
    return study.state == "completed"


def _upload(client: Client, dataset: str, source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in _FILES[dataset](source, Path(folder)):
            client.upload(dataset, path)


def _as_they_are(*names: str) -> Callable[[Path, Path], Iterator[Path]]:
    def files(source: Path, _: Path) -> Iterator[Path]:
        yield from (source / name for name in names)

    return files


def _snips(source: Path, folder: Path) -> Iterator[Path]:
    """All test rows, and the first training rows of a shuffle: all of them would take more than an hour on two cores."""
    convert(source, folder, rows=_SNIPS_ROWS)
    yield from (folder / "train.jsonl", folder / "test.jsonl")


def _wnut17(source: Path, folder: Path) -> Iterator[Path]:
    files = {"wnut17train.conll": "train", "emerging.dev.conll": "validation", "emerging.test.annotated": "test"}
    for published, split in files.items():
        path = folder / f"{split}.conll"
        path.write_bytes((source / published).read_bytes())
        yield path


def _omniglot(source: Path, folder: Path) -> Iterator[Path]:
    """Both zips as one; a character that is in both is there once."""
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w") as whole:
        for number in (1, 2):
            with zipfile.ZipFile(source / f"images_background_small{number}.zip") as part:
                for name in part.namelist():
                    inside = name.partition("/")[2]
                    if inside.endswith(".png") and inside not in whole.NameToInfo:
                        whole.writestr(inside, part.read(name))
    yield path


_FILES: dict[str, Callable[[Path, Path], Iterator[Path]]] = {
    "banking77": _as_they_are("train.csv", "test.csv"),
    "snips": _snips,
    "wnut17": _wnut17,
    "omniglot": _omniglot,
    "gsm8k": _as_they_are("train.jsonl", "test.jsonl"),
}


if __name__ == "__main__":
    sys.exit(main())
