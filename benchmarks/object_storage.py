"""What object storage costs, beside a disk and beside the storage by itself: `python -m benchmarks.object_storage NAME`.

    pull     one large checkpoint through the API, beside `curl` from the same S3 server
    epoch    what is saved after an epoch, to a disk and to the S3 server

The S3 server is moto's, on this machine: it is no measure of a network, but of what stands in front of one.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.service import a_service
from benchmarks.service_load import a_running_study, fetched, process_of
from service.checkpoints.cached import CachedTrialFolder
from service.checkpoints.local import TrialFolder
from service.checkpoints.storage import Patience, open_storage
from service.checkpoints.trial_objects import TrialObjects
from tests.s3 import ADDRESS, running_s3

_TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.object_storage", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("pull")
    one.add_argument("--megabytes", type=int, default=1000)
    one.set_defaults(run=pull)
    one = commands.add_parser("epoch")
    one.add_argument("--export", type=int, default=91, help="megabytes of an export: MiniLM's")
    one.add_argument("--state", type=int, default=273, help="megabytes of a state: MiniLM's with AdamW's moments")
    one.set_defaults(run=epoch)
    asked = parser.parse_args()
    asked.run(asked)


def pull(asked: argparse.Namespace) -> None:
    """Megabytes a second through the API and from the storage itself; what the API process grew by at most."""
    with running_s3() as s3, a_service(**s3, TUNEYARD_STORAGE_URL=ADDRESS, TUNEYARD_STANDBY="false") as (service, client):
        study = client.wait(client.apply(a_running_study(trials=1, export_megabytes=asked.megabytes)).id, timeout=600)
        path = f"{service.url}/v1/studies/{study.id}/trials/0/checkpoint/files/ballast.json"
        token = {"Authorization": f"Bearer {service.token}"}
        api = process_of(service, "service.app")
        before = api.memory_info().rss
        ours, theirs = [], []
        with _largest(api) as largest:
            for _ in range(_TURNS):
                ours.append(fetched(path, token))
                there = httpx.get(path, params={"redirect": "true"}, headers=token, trust_env=False).headers["Location"]
                theirs.append(fetched(there, {}))
        print(f"{'tuneyard':20}{asked.megabytes / min(ours):8.0f} MB/s\n{'storage':20}{asked.megabytes / min(theirs):8.0f} MB/s")
        print(f"{min(theirs) / min(ours):.2f} of its speed; the API process grew by {(largest[0] - before) / 1e6:.0f} MB at most")


@contextmanager
def _largest(process: psutil.Process) -> Iterator[list[int]]:
    """The most memory that the process has meanwhile."""
    found, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            found[0] = max(found[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def epoch(asked: argparse.Namespace) -> None:
    """Seconds for an export and a state, on a disk and on the way to the storage."""
    with running_s3() as s3, tempfile.TemporaryDirectory(prefix="bench-") as root:
        os.environ.update(s3)
        storage = open_storage(ADDRESS, Patience.LONG)
        here = TrialFolder(Path(root) / "disk", "study", 0)
        cached = CachedTrialFolder(
            TrialFolder(Path(root) / "cache", "study", 0), TrialObjects(storage, "study", 0), lambda: None
        )  # fmt: skip
        disk, sent = [_seconds(_saved(folder, asked)) for folder in (here, cached)]
        ballast = Path(root) / "ballast"
        _write(ballast, asked.export + asked.state)
        bare = _seconds(lambda _: storage.send("ballast", ballast, ""))
    print(f"an export of {asked.export} MB and a state of {asked.state} MB: disk {disk:.2f} s, storage {sent:.2f} s")
    print(f"as many bytes put there and nothing else: {bare:.2f} s")


def _saved(folder: Any, asked: argparse.Namespace) -> Callable[[int], None]:
    def save(report: int) -> None:
        folder.save_export(report, lambda to: _write(to / "model.safetensors", asked.export), before=report - 1)
        folder.save_resume(
            [{"number": number} for number in range(1, report + 1)], lambda to: _write(to / "state.pt", asked.state)
        )

    return save


def _write(path: Path, megabytes: int) -> None:
    piece = os.urandom(1_000_000)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(piece)


def _seconds(save: Callable[[int], None]) -> float:
    """The shortest of some turns."""
    found = []
    for report in range(1, _TURNS + 1):
        begun = time.perf_counter()
        save(report)
        found.append(time.perf_counter() - begun)
    return min(found)


if __name__ == "__main__":
    main()
