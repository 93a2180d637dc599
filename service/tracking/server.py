"""The tracking server: a child process on the loopback interface, reached from outside through the API's gateway only.

    python -m service.tracking.server --folder HOME/mlflow --port 5000

`mlflow server` imports everything twice, in a parent that only waits and in the worker it starts: half the memory and more than
half of the start. Here the worker is the process itself, configured as that command does it (`mlflow.server._run_server` and
`mlflow.server.constants`, mlflow 3.17), and its port opens when its database is ready.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

PREFIX = "/mlflow"
_ARTIFACT_ROOT = "mlflow-artifacts:/"
"""Runs name their files by the server, not by a path of this machine: clients read them through the gateway."""


def url(port: int) -> str:
    """The server's address on this machine, without a trailing slash."""
    return f"http://127.0.0.1:{port}{PREFIX}"


def command(folder: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    """Arguments and added environment of a tracking server that keeps everything under `folder`."""
    arguments = [sys.executable, "-m", "service.tracking.server", f"--folder={folder}", f"--port={port}"]
    return arguments, environment(folder, port)


def environment(folder: Path, port: int) -> Mapping[str, str]:
    """What the server is told: where it keeps things, that it sends nothing anywhere and that it runs nothing."""
    database = _database(folder)
    return {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": _ARTIFACT_ROOT,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
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
    parser.add_argument("--folder", type=Path, required=True, help="where it keeps everything")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    (folder / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.update(environment(folder, arguments.port))
    os.umask(0o077)
    os.nice(5)  # what decides goes first; what trains comes after, at 15

    import uvicorn  # noqa: PLC0415 - `command` is used where neither may be loaded
    from mlflow.server.fastapi_app import app  # noqa: PLC0415
    from mlflow.server.handlers import initialize_backend_stores  # noqa: PLC0415

    database = _database(folder)
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


def _database(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


if __name__ == "__main__":
    sys.exit(main())
