"""The tracking server: a child process on the loopback interface, reached from outside through the API's gateway only.

    python -m service.tracking.server --port 5000

`mlflow server` imports everything twice, in a parent that only waits and in the worker it starts: half the memory and more than
half of the start. Here the worker is the process itself, configured as that command does it (`mlflow.server._run_server` and
`mlflow.server.constants`, mlflow 3.17), and its port opens when its database is ready. Where that is comes by the environment,
as a URL may hold a password, and everybody on a machine sees what processes are called with.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREFIX = "/mlflow"
_ARTIFACT_ROOT = "mlflow-artifacts:/"
"""Runs name their files by the server, not by a path of this machine: clients read them through the gateway."""
_DATABASE, _FILES = "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
_TURNS_LOCK = 0x6D6C666C
"""A number that no other user of a PostgreSQL server is likely to lock."""


def url(port: int) -> str:
    """The server's address on this machine, without a trailing slash."""
    return f"http://127.0.0.1:{port}{PREFIX}"


def command(database: str, files: str, port: int) -> tuple[list[str], Mapping[str, str]]:
    """Arguments and added environment of a tracking server with this database (a URL) and this folder, or s3:// address."""
    return [sys.executable, "-m", "service.tracking.server", f"--port={port}"], environment(database, files, port)


def environment(database: str, files: str, port: int) -> Mapping[str, str]:
    """What the server is told: where it keeps things, that it sends nothing anywhere and that it runs nothing."""
    return {
        _DATABASE: database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": _ARTIFACT_ROOT,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        _FILES: files,
        "_MLFLOW_STATIC_PREFIX": PREFIX,
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "",
        "MLFLOW_ENABLE_WORKSPACES": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.tracking.server")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    arguments = parser.parse_args()
    database, files = os.environ[_DATABASE], os.environ[_FILES]
    os.umask(0o077)
    if "://" not in files:
        Path(files).mkdir(parents=True, exist_ok=True, mode=0o700)
    if database.startswith("sqlite:///"):
        Path(database.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.nice(5)  # what decides goes first; what trains comes after, at 15

    import uvicorn  # noqa: PLC0415 - `command` is used where neither may be loaded
    from mlflow.server.fastapi_app import app  # noqa: PLC0415
    from mlflow.server.handlers import initialize_backend_stores  # noqa: PLC0415

    _bring_up_to_date(database)
    initialize_backend_stores(database, database, _ARTIFACT_ROOT)
    # Its lifespan only looks for the Assistant's containers, with docker.
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=arguments.port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()
    return 0


def _bring_up_to_date(database: str) -> None:
    """Make MLflow's tables, or change those of an earlier MLflow, as `mlflow db upgrade` does; one server after the other."""
    from mlflow.store.db import utils  # noqa: PLC0415 - as above

    engine = utils.create_sqlalchemy_engine_with_retry(database)
    try:
        with _in_turn(engine):
            if utils._is_empty_database(engine):  # noqa: SLF001 - what the command calls
                utils._initialize_tables(engine)  # noqa: SLF001 - as above
            elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():  # noqa: SLF001 - as above
                utils._upgrade_db(engine)  # noqa: SLF001 - as above
    finally:
        engine.dispose()


@contextmanager
def _in_turn(engine: Any) -> Iterator[None]:
    """Alone among the servers that start on a PostgreSQL database; the home's own file has one."""
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({_TURNS_LOCK})")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_TURNS_LOCK})")


if __name__ == "__main__":
    sys.exit(main())
