"""What projects have taken, of all that counts against their quotas."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from service.domain.access import Usage
from service.domain.ports import DatasetStore, ProjectStore


def usage_of(projects: ProjectStore, datasets: DatasetStore, names: Collection[str]) -> Mapping[str, Usage]:
    """Of each of these projects, its uploads too."""
    return {name: replace(one, dataset_bytes=datasets.of(name).size()) for name, one in projects.usage(names).items()}
