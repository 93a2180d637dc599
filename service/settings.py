"""Settings, from the environment (`TUNEYARD_*`) or the command line, and the layout of the service's home folder."""

import json
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.domain.errors import WrongSettings
from service.domain.storage_address import checked_address


def _listed(separator: str) -> Callable[[Any], Any]:
    """A list from a variable: as JSON, or written one after the other."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError as error:
                raise ValueError(f"is no JSON: {error}") from error
        return [part.strip() for part in value.split(separator) if part.strip()]

    return read


_Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed(os.pathsep))]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed(","))]


class Settings(BaseSettings):
    """Everything that can be set about a service. All it writes is under `home`."""

    model_config = SettingsConfigDict(env_prefix="TUNEYARD_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".tuneyard")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; SQLite under `home` when left out.")
    token_file: Path | None = Field(
        default=None, description="File with the API's token, for services that share one; the home folder's when left out."
    )
    mlflow_database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of MLflow's own database; SQLite under `home` when left out."
    )
    mlflow_artifacts: str | None = Field(
        default=None, description="Folder or s3://BUCKET/PATH for the files of MLflow's runs; under `home` when left out."
    )
    ray_address: str | None = Field(default=None, description="Address of a Ray head to join; one of our own when left out.")
    storage_url: str | None = Field(default=None, description="Object storage for checkpoints; under `home` when left out.")
    cpus: int | None = Field(default=None, ge=1, description="CPU slots of our own Ray; all of them when left out.")
    gpus: int | None = Field(default=None, ge=0, description="GPU slots of our own Ray; those found when left out.")
    model_roots: _Folders = Field(default=(), description="Folders whose models a study may name by path.")
    offline: bool = Field(default=False, description="Never ask the Hugging Face hub.")
    hub_account: bool = Field(
        default=False,
        description="Ask the hub as the account that is logged in on this machine, for everybody who uses the service.",
    )
    max_upload_bytes: int = Field(default=2 * 1024**3, ge=1)
    max_uploaded_files: int = Field(default=1000, ge=1, description="Files that the data sets of one project may have together.")
    worker_environment: _Names = Field(
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
    allowed_hosts: _Names = Field(
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

    @field_validator("storage_url")
    @classmethod
    def _can_be_used(cls, url: str | None) -> str | None:
        return None if url is None else checked_address(url)

    @property
    def layout(self) -> "Layout":
        """Where things are under `home`."""
        return Layout(self.home.expanduser().absolute())

    @property
    def store_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.layout.root / 'tuneyard.db'}"

    @property
    def mlflow_database(self) -> str:
        """MLflow's database."""
        return self.mlflow_database_url or f"sqlite:///{self.layout.mlflow / 'mlflow.db'}"

    @property
    def mlflow_files(self) -> str:
        """Where MLflow keeps the files of runs."""
        return self.mlflow_artifacts or str(self.layout.mlflow / "artifacts")


def read_settings(**given: Any) -> Settings:
    """The settings, of which those that are `given` come first. Raises WrongSettings, StorageRefused."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise WrongSettings("; ".join(_refusal(given, one["loc"], one["input"], one["msg"]) for one in error.errors())) from error


def _refusal(given: dict[str, Any], place: tuple[int | str, ...], value: Any, message: str) -> str:
    name, *inside = map(str, place)
    called = f"--{name.replace('_', '-')}" if name in given else f"TUNEYARD_{name.upper()}"
    # An address may hold a password.
    found = called if name.endswith("url") else f"{called} cannot be {str(value)!r}"
    return f"{found}: {message.removeprefix('Value error, ')}{f' (entry {inside[0]})' if inside else ''}"


class Layout:
    """Paths under the home folder. Nothing is created by asking for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.token = root / "token"
        """The API's token, mode 0600."""
        self.name = root / "name"
        """What this service adds to the machine's name, among those that use the same database."""
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
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def service_name(layout: Layout) -> str:
    """What a service is called among those that use its database: by its machine, and by what its home folder drew once."""
    try:
        drawn = layout.name.read_text().strip()
    except FileNotFoundError:
        write_exclusive(layout.name, secrets.token_hex(3))
        drawn = layout.name.read_text().strip()
    return f"{socket.gethostname()}-{drawn}"


def write_exclusive(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all or nothing; one that another process has just written stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_private(temporary, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
