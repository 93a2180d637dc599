"""Which checkpoint store a service has: a folder below its home, or object storage, which alone loads what that needs."""

from typing import TYPE_CHECKING

from service.checkpoints.local import LocalCheckpointStore
from service.domain.ports import CheckpointStore
from service.settings import Settings

if TYPE_CHECKING:
    from service.checkpoints.storage import Storage


def open_checkpoints(settings: Settings, storage: "Storage | None") -> CheckpointStore:
    """The checkpoints of a service whose object storage, if it has one, is open."""
    if storage is None:
        return LocalCheckpointStore(settings.layout.checkpoints)
    from service.checkpoints.objects import ObjectCheckpointStore  # noqa: PLC0415 - a service without storage needs none of it

    return ObjectCheckpointStore(storage, settings.layout.checkpoints)


def quick_storage(settings: Settings) -> "Storage | None":
    """The service's object storage, for who has others waiting; None where it has none. Raises StorageAway."""
    return None if settings.storage_url is None else _opened(settings.storage_url, is_patient=False)


def patient_storage(settings: Settings) -> "Storage | None":
    """The same for who would rather wait than fail."""
    return None if settings.storage_url is None else _opened(settings.storage_url, is_patient=True)


def _opened(url: str, *, is_patient: bool) -> "Storage":
    from service.checkpoints.storage import Patience, open_storage  # noqa: PLC0415 - see above

    return open_storage(url, Patience.LONG if is_patient else Patience.SHORT)
