"""MLflow's database: made by whichever server comes first, and brought up to date by the next MLflow."""

import os
import subprocess
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine, inspect

from service.serve import free_ports
from service.store.database import tracking_url
from service.tracking import server
from tests.servers import Postgresql

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]

_START_SECONDS = 120.0


def _start(database: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    arguments, environment = server.command(database, str(folder / "artifacts"), port)
    with (folder / f"{port}.log").open("ab") as log:
        return subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=log, stderr=log)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"{server.url(port)}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("where", ["database", "schema"])
def test_servers_that_start_at_the_same_time_make_the_tables_once_and_all_come_up(
    postgresql: Postgresql, tmp_path: Path, where: str
) -> None:
    own = postgresql.database("tuneyard")
    if where == "database":
        url = postgresql.database("mlflow")
    else:
        with psycopg.connect(own, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA mlflow")
        url = f"{own}&options=-csearch_path%3Dmlflow"
    ports = free_ports(2)
    servers = [_start(tracking_url(url, own), tmp_path, port) for port in ports]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not all(_answers(port) for port in ports):
            logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
            assert [one.poll() for one in servers] == [None, None], logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.2)
        api = "api/2.0/mlflow/experiments"
        with httpx.Client(trust_env=False, timeout=60) as http:
            created = http.post(f"{server.url(ports[0])}/{api}/create", json={"name": "shared"}).json()
            found = http.get(f"{server.url(ports[1])}/{api}/get-by-name", params={"experiment_name": "shared"})
        assert found.json()["experiment"]["experiment_id"] == created["experiment_id"]
    finally:
        for one in servers:
            one.terminate()
        for one in servers:
            one.wait(60)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
def test_a_database_of_an_earlier_mlflow_is_brought_up_to_date_with_what_is_in_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    engine = create_engine(url)
    config = utils._get_alembic_config(url)
    earlier = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()][20]
    Base.metadata.create_all(engine)
    command.upgrade(config, earlier)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (17, 'kept', 'x', 'active')"
        )
    server._bring_up_to_date(url)
    server._bring_up_to_date(url)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == utils._get_latest_schema_revision()
        assert connection.exec_driver_sql("SELECT name FROM experiments WHERE experiment_id = 17").scalar() == "kept"
    assert inspect(engine).has_table("registered_models")
    engine.dispose()
