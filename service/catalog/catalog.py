"""What there is to train on, put together: base models, uploaded rows, built-in rows."""

from service.catalog.checks import check_rows
from service.catalog.datasets import LocalDatasetStore
from service.catalog.hub import HubCache, HuggingFaceHub
from service.catalog.hub_datasets import HubDatasets, HuggingFaceDatasets
from service.catalog.model_checks import check_models, check_requirements, needs_weights
from service.catalog.models import Models
from service.catalog.ranking import ModelShelf, open_prober
from service.catalog.sources import Sources
from service.catalog.variants import rows_of, values_of
from service.domain.base_models import BaseModels
from service.domain.definition import StudyDefinition
from service.domain.errors import InvalidDefinition
from service.domain.ports import Catalog, DatasetStore, LocalSources
from service.settings import Settings


def open_catalog(settings: Settings) -> Catalog:
    """The catalog of a service."""
    return LocalCatalog(_open_models(settings), _open_sources(settings))


def open_base_models(settings: Settings) -> BaseModels:
    """The base models of a service."""
    return ModelShelf(_open_models(settings), _open_sources(settings), open_prober(settings.layout.cache / "probe"))


def open_datasets(settings: Settings) -> DatasetStore:
    """The uploaded data sets of a service."""
    return LocalDatasetStore(settings.layout.datasets, settings.max_upload_bytes)


def _open_models(settings: Settings) -> Models:
    downloads = settings.layout.cache / "hub"
    return Models(
        roots=settings.model_roots,
        cache=HubCache(downloads),
        hub=None if settings.offline else HuggingFaceHub(downloads, as_account=settings.hub_account),
    )


def _open_sources(settings: Settings) -> Sources:
    cache = settings.layout.cache
    hub = None if settings.offline else HuggingFaceDatasets(as_account=settings.hub_account)
    return Sources(open_datasets(settings), cache / "builtin", HubDatasets(cache / "rows", hub, settings.max_upload_bytes))


class LocalCatalog:
    """Models and rows on this machine, or fetched to it."""

    def __init__(self, models: Models, sources: Sources) -> None:
        self._models = models
        self._sources = sources

    def of(self, project: str) -> "LocalCatalog":
        return LocalCatalog(self._models, self._sources.of(project))

    def check(self, definition: StudyDefinition) -> None:
        violations = [
            *check_models(definition, self._models),
            *check_requirements(definition, self._models),
            *check_rows(definition, self._sources),
        ]
        if violations:
            raise InvalidDefinition(violations)

    def fetch(self, definition: StudyDefinition) -> LocalSources:
        # Models first: a download takes minutes, in which an uploaded file may be replaced.
        weights = needs_weights(definition)
        names = [str(choice.value) for choice in values_of(definition, "model")]
        models = {name: self._models.fetch(name, weights=weights) for name in names}
        used = {uri: None for rows in rows_of(definition) for uri in rows.data.named.values()}
        return LocalSources(models=models, sources={uri: self._sources.fetch(uri) for uri in used})
