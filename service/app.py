"""The API process: routes over the store, and nothing heavy.

python -m service.app --fd 3 --mlflow http://127.0.0.1:5000/mlflow
"""

import argparse
import gc
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.analysis.analyst import Analyst
from service.analysis.forecasts import Forecasts
from service.analysis.previews import Previews
from service.api.app import create_api
from service.api.auth import token_of
from service.api.dependencies import ApiParts
from service.api.oidc import open_identities
from service.api.protocol import BoundedProtocol
from service.api.summaries import Summaries
from service.catalog.catalog import open_base_models, open_catalog, open_datasets
from service.checkpoints.opening import open_checkpoints, quick_storage
from service.clock import SystemClock
from service.controller.room import Capacity, slots_within
from service.domain.definition import Resources, StudyDefinition
from service.domain.errors import InvalidDefinition, Violation
from service.domain.ports import Catalog, LocalSources
from service.settings import Settings, service_name
from service.store.sql import open_store


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.app")
    parser.add_argument("--fd", type=int, required=True, help="a socket that listens already")
    parser.add_argument("--mlflow", required=True, help="address of the tracking server")
    arguments = parser.parse_args()
    config = configure(make_app(Settings(), arguments.mlflow), arguments.fd)
    gc.collect()
    gc.freeze()  # what was imported stays: no collection has to look at it again
    uvicorn.Server(config).run()
    return 0


def configure(app: ASGIApp, fd: int) -> uvicorn.Config:
    """How `app` is served, on a socket that listens already."""
    # No access log: a login link's code would stand in it.
    return uvicorn.Config(
        app,
        fd=fd,
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        log_level="info",
        timeout_graceful_shutdown=3,
        server_header=False,
    )


def make_app(settings: Settings, mlflow_url: str | None) -> FastAPI:
    """The API on the real adapters."""
    store = open_store(settings.store_url)
    storage = quick_storage(settings)
    checkpoints = open_checkpoints(settings, storage)
    return create_api(
        ApiParts(
            store=store,
            datasets=open_datasets(settings),
            checkpoints=checkpoints,
            catalog=catalog_of(settings),
            models=open_base_models(settings),
            analyst=Analyst(store),
            previewer=Previews(),
            forecaster=Forecasts(store, checkpoints, SystemClock()),
            clock=SystemClock(),
            settings=settings,
            token=token_of(settings),
            summaries=Summaries(store.trials),
            identities=open_identities(settings),
            mlflow_url=mlflow_url,
            look_at_storage=None if storage is None else storage.is_up,
            name=service_name(settings.layout),
        )
    )


def catalog_of(settings: Settings) -> Catalog:
    """The catalog, which knows how large this machine is where the service trains on it alone.

    A cluster that is joined may grow, or have lost a machine for a while: a study waits there until one is large enough.
    """
    catalog = open_catalog(settings)
    return catalog if settings.ray_address else WithCapacity(catalog, settings.layout.run / "capacity.json")


@dataclass(frozen=True)
class WithCapacity:
    """A catalog that also refuses studies whose trials no worker here can ever hold."""

    catalog: Catalog
    capacity: Path
    """Written by the controller once it knows."""

    def of(self, project: str) -> Catalog:
        return WithCapacity(self.catalog.of(project), self.capacity)

    def check(self, definition: StudyDefinition) -> None:
        self.catalog.check(definition)
        try:
            held = Capacity.of(json.loads(self.capacity.read_text()))
        except FileNotFoundError:
            return
        if not held.cpus or slots_within(held, definition.resources):
            return  # where no worker is up yet the study waits for one
        raise InvalidDefinition([_too_large(held, definition.resources)])

    def fetch(self, definition: StudyDefinition) -> LocalSources:
        return self.catalog.fetch(definition)


def _too_large(held: Capacity, needs: Resources) -> Violation:
    """What of a trial's needs no machine has, and what to do about it."""
    cpus, gpus = "/resources/cpus_per_trial", "/resources/gpus_per_trial"
    if needs.gpus > held.gpus:
        return Violation(gpus, f"all workers together have {held.gpus:g} GPUs: set it to 0 to train on CPUs")
    if needs.cpus_per_trial > held.cpus:
        return Violation(cpus, f"all workers together have {held.cpus:g} CPUs: lower it")
    if needs.gpus > held.largest.gpus:
        return Violation(gpus, f"a trial runs on one machine, and the largest has {held.largest.gpus:g} GPUs: lower it")
    if needs.cpus_per_trial > held.largest.cpus:
        return Violation(cpus, f"a trial runs on one machine, and the largest has {held.largest.cpus:g} CPUs: lower it")
    return Violation(cpus, "a trial runs on one machine, and none that has as many GPUs has as many CPUs: lower one of them")


if __name__ == "__main__":
    sys.exit(main())
