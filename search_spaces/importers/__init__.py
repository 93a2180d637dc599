"""Search definitions of other tools as studies of ours. A file says what varies and how to search; never what is trained here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.importers.assembly import assemble
from search_spaces.importers.determined import is_determined, read_determined
from search_spaces.importers.katib import is_katib, read_katib
from search_spaces.importers.pieces import Note, NotImportable, Pieces
from search_spaces.importers.wandb import is_wandb, read_wandb

__all__ = ["Imported", "NotImportable", "Note", "import_definition"]


@dataclass(frozen=True)
class Imported:
    """A study's document without what its trainer, model and rows are, and what of the other tool's file is not in it."""

    tool: str
    document: dict[str, Any]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Tool:
    name: str
    knows: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Pieces]


_TOOLS = (
    _Tool("katib", is_katib, read_katib),
    _Tool("determined", is_determined, read_determined),
    _Tool("wandb", is_wandb, read_wandb),
)


def import_definition(document: Any) -> Imported:
    """The study that a decoded file of another tool stands for, whichever tool that is.

    Raises `NotImportable` for what is none of them, and for values that mean nothing to the tool itself.
    """
    if not isinstance(document, Mapping):
        raise NotImportable("", f"must be an object with keys, not {type(document).__name__}: {_ASKED}")
    for tool in _TOOLS:
        if tool.knows(document):
            return Imported(tool.name, *assemble(tool.read(document), tool.name))
    raise NotImportable("", _ASKED)


_ASKED = (
    "give a Katib Experiment (`apiVersion: kubeflow.org/v1beta1`), a W&B sweep (`method` and `parameters`) or a Determined "
    "experiment (`searcher` and `hyperparameters`)"
)
