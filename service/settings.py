"""Settings, from the environment (`TUNEYARD_*`) or the command line, and the layout of the service's home folder."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything that can be set about a service. All it writes is under `home`."""

    model_config = SettingsConfigDict(env_prefix="TUNEYARD_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".tuneyard")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; SQLite under `home` when left out.")
    ray_address: str | None = Field(default=None, description="Address of a Ray head to join; one of our own when left out.")
    cpus: int | None = Field(default=None, ge=1, description="CPU slots of our own Ray; all of them when left out.")
    gpus: int | None = Field(default=None, ge=0, description="GPU slots of our own Ray; those found when left out.")
    model_roots: tuple[Path, ...] = Field(default=(), description="Folders whose models a study may name by path.")
    offline: bool = Field(default=False, description="Never ask the Hugging Face hub.")
    max_upload_bytes: int = Field(default=2 * 1024**3, ge=1)
    max_uploaded_files: int = Field(default=1000, ge=1, description="Files that the data sets of one project may have together.")
    worker_environment: tuple[str, ...] = Field(
        default=(),
        description="Variables that our own Ray's workers get beside those they need, such as `HTTPS_PROXY` or `AWS_*`.",
    )
    lease_seconds: float = Field(default=10.0, gt=0)
    heartbeat_seconds: float = Field(default=2.0, gt=0)
    max_running_studies: int = Field(default=8, ge=1, description="Studies that may run at once; the others wait in a queue.")
    max_running_studies_per_user: int | None = Field(default=None, ge=1, description="Of those, of one user; any when left out.")
    max_slots_per_user: int | None = Field(default=None, ge=1, description="Trials of one user at once; any when left out.")
    share_quantum_seconds: float = Field(
        default=60.0, gt=0, description="How long about a study keeps a worker that goes round: processes are slow to start."
    )
    standby: bool = Field(default=True, description="Keep a driver waiting for the next study, which starts sooner by it.")
    idle_seconds: float = Field(
        default=600.0, gt=0, description="How long without a new study until the driver that waits is let go."
    )
    login_code_seconds: float = Field(default=300.0, gt=0)
    session_seconds: float = Field(default=30 * 86400.0, gt=0)
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names that browsers may use; on a loopback address its own names always, else any when left out.",
    )
    max_failed_logins_per_minute: int = Field(default=30, ge=1, description="Wrong tokens and links from one address.")
    max_writes_per_minute: int = Field(default=3000, ge=1, description="Changes by one caller.")
    oidc_issuer: str | None = Field(default=None, description="Identity provider whose tokens count here.")
    oidc_audience: str | None = Field(default=None, description="What its tokens have to be made out to.")
    oidc_jwks_url: str | None = Field(default=None, description="Its public keys; asked of the issuer when left out.")
    oidc_role_claim: str = Field(default="tuneyard_role", description="Claim with viewer, editor or admin.")
    oidc_project_claim: str = Field(default="tuneyard_project", description="Claim with the project; `*` is every one.")

    @property
    def layout(self) -> "Layout":
        """Where things are under `home`."""
        return Layout(self.home.expanduser().absolute())

    @property
    def store_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.layout.root / 'tuneyard.db'}"


class Layout:
    """Paths under the home folder. Nothing is created by asking for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.token = root / "token"
        """The API's token, mode 0600."""
        self.ray_token = root / "ray" / "token"
        self.ray = root / "ray"
        """Ray's temporary folder and Tune's attempt folders."""
        self.datasets = root / "datasets"
        self.checkpoints = root / "checkpoints"
        self.cache = root / "cache"
        """Prepared data, built-in data sets, downloaded models: can be deleted while nothing runs."""
        self.mlflow = root / "mlflow"
        self.logs = root / "logs"
        self.run = root / "run"
        """The lock, the address and the processes of a running service."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
