"""Tokens, projects and the audit log, for admins."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from service.api.access_views import AuditEntryView, CallerView, NewTokenView, ProjectsView, ProjectView, TokensView, TokenView
from service.client.connection import Connection
from service.domain.access import Role

_JSON = {"Content-Type": "application/json"}
_YOURS = object()


class Access:
    """What a `Client` does about who may use the service; errors are the client's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def me(self) -> CallerView:
        """Who the service takes this client for."""
        return CallerView.model_validate_json(self._connection.request("GET", "/v1/me").content)

    def create_token(
        self,
        name: str,
        role: Role | str = Role.EDITOR,
        project: str | object | None = _YOURS,
        expires_in_days: float | None = 90.0,
    ) -> NewTokenView:
        """A new token, with its secret. `project` left out is this client's own, where it has one; None is every one."""
        wanted: dict[str, Any] = {"name": name, "role": str(role), "expires_in_days": expires_in_days}
        if project is not _YOURS:
            wanted["project"] = project
        return NewTokenView.model_validate_json(self._send("POST", "/v1/tokens", wanted))

    def tokens(self) -> TokensView:
        """The tokens of this client's project, or all."""
        return TokensView.model_validate_json(self._connection.request("GET", "/v1/tokens").content)

    def revoke_token(self, token_id: str) -> TokenView:
        """Let nobody in with it any more."""
        path = f"/v1/tokens/{quote(token_id, safe='')}"
        return TokenView.model_validate_json(self._connection.request("DELETE", path).content)

    def end_sessions(self) -> None:
        """Log every browser out."""
        self._connection.request("DELETE", "/v1/sessions")

    def create_project(self, name: str, **quotas: float | None) -> ProjectView:
        """A new project; `quotas` are those of `ProjectView`."""
        return ProjectView.model_validate_json(self._send("POST", "/v1/projects", {"name": name, **quotas}))

    def projects(self) -> ProjectsView:
        """The projects that this client sees."""
        return ProjectsView.model_validate_json(self._connection.request("GET", "/v1/projects").content)

    def set_quotas(self, name: str, **quotas: float | None) -> ProjectView:
        """Replace the project's quotas; what is left out is not limited."""
        return ProjectView.model_validate_json(self._send("PUT", f"/v1/projects/{quote(name, safe='')}/quotas", quotas))

    def audit(self, after: int = 0) -> Iterator[AuditEntryView]:
        """The audit log, after an entry's id."""
        answer = self._connection.request("GET", "/v1/audit", params={"after": after})
        return map(AuditEntryView.model_validate_json, answer.iter_lines())

    def _send(self, method: str, path: str, document: Any) -> bytes:
        return self._connection.request(method, path, headers=_JSON, content=json.dumps(document).encode()).content
