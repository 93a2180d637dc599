"""The API under load, for `benchmarks.service`."""

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import psutil

from service.client import Client
from service.domain.definition import parse_definition
from service.domain.study import Study, StudyReason
from service.domain.trial import Attempt, AttemptOutcome, Report, Trial, TrialReason, TrialState
from service.store import tables
from service.store.database import Database
from service.store.rows import attempt_row, report_row, study_row, trial_row
from tests.running import RunningService, wait_until

Services = Callable[..., AbstractContextManager[tuple[RunningService, Client]]]


def load(asked: argparse.Namespace, a_service: Services) -> None:
    """Milliseconds that reads take at a steady rate, by what is read, with a study running; the API process's share of a core."""
    with a_service() as (service, client):
        fill(Database(f"sqlite:///{service.home}/tuneyard.db"), asked.studies, asked.trials)
        running = client.apply(a_running_study(seconds=1.0))
        wait_until(lambda: client.study(running.id).trials.get(TrialState.COMPLETED, 0), 100, "no trial ends")
        paths = _paths(service, running.id)
        api = process_of(service, "service.app")
        before, begun = _cpu_seconds(api), time.perf_counter()
        found = asyncio.run(_steadily(service, paths, asked.rate, asked.seconds))
        share = (_cpu_seconds(api) - before) / (time.perf_counter() - begun)
        client.cancel(running.id)
    print(f"{'':34}{'median ms':>12}{'p99 ms':>12}")
    everything = [took for times in found.values() for took in times]
    for name, times in [*found.items(), ("all", everything)]:
        cuts = quantiles(times, n=100)
        print(f"{name:34}{1000 * cuts[49]:12.1f}{1000 * cuts[98]:12.1f}")
    print(f"{len(everything)} requests at {asked.rate} a second; the API took {share:.2f} of a core")


def _last_page(client: httpx.Client, path: str) -> str:
    """The address of a list's last page."""
    first = page = f"{path}?limit={_PAGE}"
    while cursor := client.get(page).raise_for_status().json()["cursor"]:
        page = f"{first}&cursor={cursor}"
    return page


def _paths(service: RunningService, running: str) -> dict[str, str]:
    """What is read: pages at the start and at the end of the lists, and single things."""
    trials = f"/v1/studies/{_BIG}/trials"
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {service.token}"}) as client:
        last_studies, last_trials = _last_page(client, "/v1/studies"), _last_page(client, trials)
    return {
        "studies, first page": f"/v1/studies?limit={_PAGE}",
        "studies, last page": last_studies,
        "trials of 5,000, first page": f"{trials}?limit={_PAGE}",
        "trials of 5,000, last page": last_trials,
        "best trials of 5,000": f"{trials}?limit={_PAGE}&order=-best_value",
        "study": f"/v1/studies/{_BIG}",
        "running study": f"/v1/studies/{running}",
        "trial": f"{trials}/7",
        "reports": f"{trials}/7/reports",
    }


async def _steadily(service: RunningService, paths: dict[str, str], rate: int, seconds: float) -> dict[str, list[float]]:
    """Requests that are due at a steady rate, whether those before have been answered or not, and how late each answer was."""
    found: dict[str, list[float]] = {name: [] for name in paths}
    due: asyncio.Queue[tuple[str, float] | None] = asyncio.Queue()
    address = httpx.URL(service.url)
    head = f"Host: {address.netloc.decode()}\r\nAuthorization: Bearer {service.token}\r\n\r\n"

    async def ask() -> None:
        # Not with a client of the usual kind, which takes longer than the server does.
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=2**20)
        while (item := await due.get()) is not None:
            name, at = item
            writer.write(f"GET {paths[name]} HTTP/1.1\r\n{head}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer.decode())
            [length] = [line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length.partition(b":")[2]))
            found[name].append(time.perf_counter() - at)
        writer.close()

    connections = [asyncio.create_task(ask()) for _ in range(_CONNECTIONS)]
    names, begun = list(paths), time.perf_counter()
    for number in range(int(rate * seconds)):
        at = begun + number / rate
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        due.put_nowait((names[number % len(names)], at))
    for _ in connections:
        due.put_nowait(None)
    await asyncio.gather(*connections)
    return found


_CONNECTIONS = 32
_PAGE = 50
_BIG, _BIG_TRIALS = "big-aaaaaa", 5000


def fill(database: Database, studies: int, trials: int) -> None:
    """Studies that have ended and are mirrored, `trials` each but for one of 5,000: written as the store writes them, at once."""
    now = datetime.now(UTC) - timedelta(days=1)
    with database.writing() as connection:
        for number in range(studies):
            study_id = f"filled-{number:06}" if number else _BIG
            definition = parse_definition({**a_running_study(), "name": f"filled {number}"})
            study = (
                Study(study_id, definition, now + timedelta(seconds=number))
                .running(now)
                .stopping(StudyReason.BUDGET_SPENT)
                .ended(now)
            )
            connection.execute(tables.studies.insert(), {**study_row(study), "last_event": 0})
            connection.execute(tables.experiments.insert(), {"study_id": study_id, "experiment_id": f"none-{number}"})
            tried = [_a_trial(study_id, place, now) for place in range(trials if number else _BIG_TRIALS)]
            keyed = [{"study_id": study_id, "trial": trial.number} for trial in tried]
            connection.execute(tables.trials.insert(), [trial_row(trial) for trial in tried])
            attempt = attempt_row(Attempt(1, 0, 1, now, now, AttemptOutcome.DONE, "host:1"))
            connection.execute(tables.attempts.insert(), [{**key, **attempt} for key in keyed])
            report = report_row(Report(1, 1.0, 10, {"validation/loss": 0.5}, 1.0, 1, "host:1", now))
            connection.execute(tables.reports.insert(), [{**key, **report} for key in keyed])
            runs = [
                {"study_id": study_id, "number": place, "run_id": f"none-{number}-{place}"} for place in range(-1, len(tried))
            ]
            connection.execute(tables.mirrored.insert(), [{**run, "version": 99, "reports": 99} for run in runs])


def _a_trial(study_id: str, number: int, now: datetime) -> Trial:
    value = (number * 37 % 1000) / 1000
    return Trial(
        study_id=study_id, number=number, parameters={"values.x": value, "values.y": value}, until=1, created_at=now,
        state=TrialState.COMPLETED, reports=1, value=value, best_value=value, best_report=1, best_epoch=1.0, attempts=1,
        seconds=1.0, reason=TrialReason.EPOCHS_DONE, started_at=now, ended_at=now,
    )  # fmt: skip


def pull(asked: argparse.Namespace, a_service: Services) -> None:
    """Megabytes a second of one file, through the API and from `python -m http.server`; what the API process grew by."""
    with a_service() as (service, client):
        study = client.wait(client.apply(a_running_study(trials=1, export_megabytes=asked.megabytes)).id, timeout=600)
        [folder] = (service.home / "checkpoints" / study.id).rglob("ballast.json")
        api = process_of(service, "service.app")
        before = api.memory_info().rss
        ours, theirs = [], []
        with _http_server(folder.parent) as url:
            for _ in range(3):
                path = f"{service.url}/v1/studies/{study.id}/trials/0/checkpoint/files/ballast.json"
                ours.append(fetched(path, {"Authorization": f"Bearer {service.token}"}))
                theirs.append(fetched(f"{url}/ballast.json", {}))
        grown = api.memory_info().rss - before
    print(f"{'tuneyard':20}{asked.megabytes / min(ours):8.0f} MB/s\n{'http.server':20}{asked.megabytes / min(theirs):8.0f} MB/s")
    print(f"{min(theirs) / min(ours):.2f} of its speed; the API process grew by {grown / 1e6:.0f} MB")


def fetched(url: str, headers: dict[str, str]) -> float:
    """Seconds that `curl` takes to fetch it, to nowhere."""
    given = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    command = ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}", *given, url]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


@contextmanager
def _http_server(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind=127.0.0.1", f"--directory={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        wait_until(lambda: _listens(port), 20, "the other server does not start")
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def watchers(asked: argparse.Namespace, a_service: Services) -> None:
    """The share of a core that the API process takes, with and without clients that follow the events of a study that runs."""
    with a_service() as (service, client):
        running = client.apply(a_running_study(seconds=1.0))
        wait_until(lambda: client.study(running.id).trials.get(TrialState.COMPLETED, 0), 100, "no trial ends")
        api = process_of(service, "service.app")
        without = _share(api, _WATCHED_SECONDS)
        url = f"{service.url}/v1/studies/{running.id}/events"
        shares = asyncio.run(_watched(api, url, service.token, asked.clients))
        client.cancel(running.id)
    heard, share = shares
    print(f"without {without:.3f} of a core, with {asked.clients} watchers {share:.3f}; each heard of {heard} events")


_WATCHED_SECONDS = 20.0


async def _watched(api: psutil.Process, url: str, token: str, clients: int) -> tuple[int, float]:
    heard = [0] * clients

    async def follow(place: int, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", url) as stream:
            async for line in stream.aiter_lines():
                heard[place] += line.startswith("event:")

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, limits=limits, timeout=60) as client:
        following = [asyncio.create_task(follow(place, client)) for place in range(clients)]
        await asyncio.sleep(3)  # for what had happened before
        share = await asyncio.to_thread(_share, api, _WATCHED_SECONDS)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return min(heard), share


def _share(process: psutil.Process, seconds: float) -> float:
    before, begun = _cpu_seconds(process), time.perf_counter()
    time.sleep(seconds)
    return (_cpu_seconds(process) - before) / (time.perf_counter() - begun)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def process_of(service: RunningService, module: str) -> psutil.Process:
    [found] = [one for one in service.processes() if module in one.cmdline()]
    return found


def a_running_study(trials: int = 10_000, seconds: float = 0.0, **trainer: Any) -> dict[str, Any]:
    """One that trains nothing, and takes so many seconds for a trial."""
    axis = {"kind": "float", "low": 0.0, "high": 1.0}
    settings = {
        "metrics": {"validation/loss": "x + y"},
        "values": {"x": 0.5, "y": 0.5},
        "epochs": 1,
        "seconds_per_epoch": seconds,
    }
    return {
        "name": "simulated",
        "trainer": {"kind": "simulated", **settings, **trainer},
        "space": {"values.x": axis, "values.y": axis},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": trials},
    }
