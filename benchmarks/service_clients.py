"""Many clients at once on PostgreSQL, for `benchmarks.service`: how long what they ask for takes, and that nothing is lost."""

import argparse
import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import httpx

from service.client import Client
from service.domain.events import EventKind
from service.domain.paging import all_studies
from service.domain.ports import Store, StudyQuery
from service.domain.trial import TrialState
from service.store.sql import open_store
from tests.running import RunningService
from tests.servers import a_postgresql

Services = Callable[..., AbstractContextManager[tuple[RunningService, Client]]]

_SETTLE_SECONDS = 120.0
_TRIES = 5
_TROUBLE = ("deadlock detected", "could not serialize", "FATAL", "PANIC", "ERROR")


@dataclass
class Tally:
    """What all clients saw: seconds by verb, answers that were refused or failed, and the events that each heard."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    odd: Counter[str] = field(default_factory=Counter)
    made: dict[str, str] = field(default_factory=dict)
    """The study that each client's POST was answered with."""
    heard: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    cpu_seconds: float = 0.0
    """Of the API process."""


def clients(asked: argparse.Namespace, a_service: Services) -> None:
    """Milliseconds of each verb with so many clients at once on PostgreSQL, and that no study is lost, doubled or left open."""
    with a_postgresql() as server:
        url = server.database("tuneyard")
        with a_service(TUNEYARD_DATABASE_URL=url, TUNEYARD_MAX_RUNNING_STUDIES="2") as (service, _):
            api = next(one for one in service.processes() if "service.app" in one.cmdline())
            before = api.cpu_times()
            tally = asyncio.run(_all(service, asked.clients, asked.seconds))
            after = api.cpu_times()
            tally.cpu_seconds = after.user + after.system - before.user - before.system
            logs = {path.stem: path.read_text(errors="replace") for path in (service.home / "logs").glob("*.log")}
        checked = _checked(tally, open_store(url), asked.clients)
        wrong = _show(tally, checked, server.log, logs)
    if wrong:
        raise SystemExit(f"That should not be: {', '.join(wrong)}")


async def _all(service: RunningService, number: int, seconds: float) -> Tally:
    """Every client begins at the same moment; studies that are left at the end are stopped, and have a while to end."""
    tally, until = Tally(), time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=2 * number + 10, max_keepalive_connections=2 * number + 10)
    headers = {"Authorization": f"Bearer {service.token}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:
        watching = [asyncio.create_task(_one(client, tally, place, until)) for place in range(number)]
        await asyncio.wait(watching, timeout=seconds + _SETTLE_SECONDS)
        for task in watching:
            if not task.done():
                tally.odd["client not done"] += 1
                task.cancel()
        for ended in await asyncio.gather(*watching, return_exceptions=True):
            if isinstance(ended, Exception):
                tally.odd[f"client failed: {type(ended).__name__}"] += 1
    return tally


async def _one(client: httpx.AsyncClient, tally: Tally, place: int, until: float) -> None:
    """One client: posts a study, watches it, pauses it, lets it go on and stops it, with pauses of its own."""
    draw = Random(place)  # noqa: S311 - pauses
    key = {"Idempotency-Key": f"client-{place}"}
    study_id = await _asked(client, tally, "create", "/v1/studies", json=_a_study(place), headers=key)
    if study_id is None:
        return
    tally.made[str(place)] = study_id
    watching = asyncio.create_task(_watch(client, tally, study_id))
    for verb, share in (("pause", 0.3), ("resume", 0.3), ("stop", 1.0)):
        await asyncio.sleep(max(0.0, (until - time.perf_counter()) * draw.uniform(0, share)))
        await _asked(client, tally, verb, f"/v1/studies/{study_id}:{verb}")
    await watching


async def _asked(client: httpx.AsyncClient, tally: Tally, verb: str, path: str, **request: Any) -> str | None:
    """Ask, and again what was refused as somebody else was faster; answers the study's id. A study may have ended by itself."""
    for _ in range(_TRIES):
        begun = time.perf_counter()
        try:
            answer = await client.post(path, **request)
        except httpx.TransportError as error:  # a connection that was kept for a while may be closed just as it is used
            tally.odd[f"{verb}: {type(error).__name__}, asked again"] += 1
            continue
        finally:  # what got no answer in time was waited for as well
            tally.seconds[verb].append(time.perf_counter() - begun)
        if answer.is_success:
            return str(answer.json()["id"])
        problem = answer.json()["type"].rpartition(":")[2]
        if problem not in {"stale-write", "store-away"}:
            if problem != "illegal-move":
                tally.odd[f"{verb}: {answer.status_code} {problem}"] += 1
            return None
        tally.odd[f"{verb}: {problem}, asked again"] += 1
    tally.odd[f"{verb}: given up"] += 1
    return None


async def _watch(client: httpx.AsyncClient, tally: Tally, study_id: str) -> None:
    """Follow a study to its end; after a dropped connection from where it was."""
    heard = tally.heard[study_id]
    for _ in range(_TRIES):
        begun, is_first = time.perf_counter(), True
        with suppress(httpx.TransportError):
            async with client.stream(
                "GET", f"/v1/studies/{study_id}/events", params={"after": heard[-1] if heard else 0}
            ) as stream:
                if stream.status_code == httpx.codes.NO_CONTENT:
                    return
                async for line in stream.aiter_lines():
                    if is_first:
                        tally.seconds["watch"].append(time.perf_counter() - begun)
                        is_first = False
                    if line.startswith("data: "):
                        heard.append(int(json.loads(line.removeprefix("data: "))["id"]))
                return
        tally.odd["watch: dropped, watched again"] += 1


def _checked(tally: Tally, store: Store, number: int) -> list[tuple[str, int, int | None]]:
    """What the store says of all that was asked for, and what it has to say, where that is known."""
    studies = list(all_studies(store.studies, StudyQuery(limit=500, order="created_at")))
    stored, named = {study.id: study for study in studies}, Counter(study.definition.name for study in studies)
    counts = store.trials.counts(list(stored))
    missed = 0
    for study_id, heard in tally.heard.items():
        told = store.events.after(study_id, 0, 100_000)
        # What is tidied up after the end is told to those who come later.
        last = max((event.id for event in told if event.kind is EventKind.STUDY_STATE), default=0)
        found = [event.id for event in told if event.id <= max(last, heard[-1] if heard else 0)]
        if heard != found:
            missed += 1
            print(f"{study_id}: heard {heard}, and there is {[(event.id, event.kind.value) for event in told]}")
    return [
        ("studies in the store", len(studies), number),
        ("ended", sum(study.state.is_end for study in studies), number),
        ("lost: answered, and not in the store", sum(study_id not in stored for study_id in tally.made.values()), 0),
        ("doubled: more than one of a client", sum(found - 1 for found in named.values()), 0),
        ("ended with trials that stand as running", sum(
            bool(counts[study.id].get(TrialState.RUNNING)) for study in studies if study.state.is_end
        ), 0),
        ("watchers that did not hear every event, once and in order", missed, 0),
        ("trials", sum(sum(found.values()) for found in counts.values()), None),
        ("events", sum(len(heard) for heard in tally.heard.values()), None),
    ]  # fmt: skip


def _show(tally: Tally, checked: list[tuple[str, int, int | None]], log: Path, logs: dict[str, str]) -> list[str]:
    """Print everything; answers what is not as it has to be."""
    print(f"{'':10}{'answers':>10}{'p50 ms':>10}{'p99 ms':>10}{'longest':>10}")
    for verb in ("create", "watch", "pause", "resume", "stop"):
        took = tally.seconds[verb]
        if len(took) > 1:
            cuts = quantiles(took, n=100)
            print(f"{verb:10}{len(took):10}{1000 * cuts[49]:10.0f}{1000 * cuts[98]:10.0f}{1000 * max(took):10.0f}")
    asked = sum(map(len, tally.seconds.values()))
    print(f"the API took {tally.cpu_seconds:.1f} s of a processor, {1000 * tally.cpu_seconds / asked:.0f} ms an answer")
    print(
        f"the machine has {os.cpu_count()} processors, and for the last 5 minutes {os.getloadavg()[1]:.1f} processes wanted one"
    )
    wrong = [name for name, value, wanted in checked if wanted is not None and value != wanted]
    for name, value in [*((name, value) for name, value, _ in checked), *sorted(tally.odd.items())]:
        print(f"{value:8}  {name}")
    said = log.read_text(errors="replace").splitlines()
    for word in _TROUBLE:
        lines = [line for line in said if word in line]
        print(f"{len(lines):8}  lines of PostgreSQL's log with `{word}`{': ' + lines[0] if lines else ''}")
        wrong += [word] if lines else []
    for name, text in logs.items():
        if found := text.count("Traceback"):
            print(f"{found:8}  tracebacks in {name}.log: {text[text.index('Traceback') :][:2000]}")
            wrong.append(f"tracebacks in {name}.log")
    return wrong


def _a_study(place: int) -> dict[str, Any]:
    axis = {"kind": "float", "low": 0.0, "high": 1.0}
    settings = {"metrics": {"validation/loss": "x"}, "values": {"x": 0.5}, "epochs": 2, "seconds_per_epoch": 0.1}
    return {
        "name": f"client {place}",
        "trainer": {"kind": "simulated", **settings},
        "space": {"values.x": axis},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 3},
        "resources": {"max_concurrent_trials": 2},
    }
