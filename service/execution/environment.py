"""How Ray's processes are started, for those who start them: no Ray here."""

import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

OBJECT_STORE_BYTES = 128 * 1024**2
"""Assignments and reports are small and nothing else goes through the object store."""
_LOG_BYTES = 20 * 1024**2
"""Of each of Ray's log files, of which there are some for every worker; half a gigabyte would be usual, five times."""


def for_cluster(token: Path) -> Mapping[str, str]:
    """What every process of the cluster needs: the token that lets it in, and quiet."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ROTATION_MAX_BYTES": str(_LOG_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Each of five tries waits as long: a worker that is born as its cluster dies would outlive it by half a minute.
        "RAY_gcs_rpc_server_connect_timeout_s": "3",
    }


def for_driver(token: Path) -> Mapping[str, str]:
    """What Tune reads from the environment of a driver."""
    return {
        **for_cluster(token),
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's snapshots are never restored
        "TUNE_RESULT_BUFFER_LENGTH": "1",
        "TUNE_WARN_THRESHOLD_S": "30",
    }


def head_command(port: int, folder: Path, cpus: int | None, gpus: int | None) -> Sequence[str]:
    """A head of our own on this machine, in the foreground: its processes end with it."""
    slots = [
        *([] if cpus is None else [f"--num-cpus={cpus}"]),
        *([] if gpus is None else [f"--num-gpus={gpus}"]),
    ]
    return [
        *_START,
        "--head",
        "--include-dashboard=false",
        f"--port={port}",
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={folder}",
        *slots,
    ]


def node_command(address: str, folder: Path) -> Sequence[str]:
    """A node without slots that joins a cluster, so that drivers can run here."""
    return [*_START, f"--address={address}", f"--temp-dir={folder}", "--num-cpus=0", "--num-gpus=0"]


_START = (
    sys.executable,
    "-m",
    "ray.scripts.scripts",
    "start",
    "--block",
    "--include-log-monitor=false",
    "--disable-usage-stats",
    f"--object-store-memory={OBJECT_STORE_BYTES}",
    "--log-style=record",
    "--log-color=false",
    # Ports of the system's choice: with fixed ones, two services on a machine would be in each other's way.
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
)


def reachable(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False
