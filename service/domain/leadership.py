"""Which controller leads, where several services use one database, and how those who hold leases are called."""

from enum import StrEnum


class Leader(StrEnum):
    """Where the controller that leads is, seen from one service."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


def leader_seen_from(home: str, holder: str | None) -> Leader:
    """Where the holder of the leadership is, seen from the service with this name."""
    if holder is None:
        return Leader.NOBODY
    return Leader.HERE if is_controller_of(holder, home) else Leader.ELSEWHERE


def controller_name(home: str, pid: int, started: int) -> str:
    """What a controller calls itself: its service's name, its number, and a time as numbers are used again."""
    return f"controller-{home}-{pid}-{started}"


def is_controller_of(owner: str, home: str) -> bool:
    """Whether a controller's name is that of one of this service's."""
    return owner.startswith(f"controller-{home}-")


def driver_name(home: str, pid: int, started: int) -> str:
    """What a driver calls itself as the owner of a lease. Numbers of processes alone are the same on many machines."""
    return f"driver-{home}-{pid}-{started}"


def is_driver_elsewhere(owner: str, home: str) -> bool:
    """Whether a lease's owner is a driver that another service started."""
    return owner.startswith("driver-") and not owner.startswith(f"driver-{home}-")


def is_driver_of(owner: str, home: str, pid: int) -> bool:
    """Whether a lease's owner is this service's driver with that number."""
    return owner.startswith(f"driver-{home}-{pid}-")
