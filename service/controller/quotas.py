"""What the quotas of the projects say of their studies now."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from service.controller.allocation import ProjectRule
from service.domain.access import Quotas, spent_quota
from service.domain.ports import DatasetStore, ProjectStore
from service.domain.usage import usage_of

_LOOK_EVERY = timedelta(seconds=5)
"""A report may be late by that before it counts: quotas are of hours."""


class ProjectQuotas:
    """Looks at them every few seconds; projects without any cost nothing. Several threads may ask."""

    def __init__(self, projects: ProjectStore, datasets: DatasetStore | None = None) -> None:
        self._projects = projects
        self._datasets = datasets
        self._looked_at: datetime | None = None
        self._rules: Mapping[str, ProjectRule] = {}

    def rules(self, now: datetime) -> Mapping[str, ProjectRule]:
        """Of each project that has a quota."""
        if self._looked_at is None or now - self._looked_at >= _LOOK_EVERY:
            self._rules, self._looked_at = self._look(), now
        return self._rules

    def _look(self) -> Mapping[str, ProjectRule]:
        quotas = {project.name: project.quotas for project in self._projects.all() if project.quotas != Quotas()}
        if not quotas:
            return {}
        usage = usage_of(self._projects, self._datasets, quotas) if self._datasets else self._projects.usage(quotas)
        return {name: ProjectRule(one.max_running_studies, spent_quota(name, one, usage[name])) for name, one in quotas.items()}
