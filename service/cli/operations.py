"""The service's sentences name operations of the API (`GET /v1/studies`): here they become the commands that do the same."""

import re

_COMMANDS = {
    "GET /v1/studies": "study ls",
    "POST /v1/studies:preview": "study preview FILE",
    "GET /v1/studies/STUDY": "study get STUDY",
    "PATCH /v1/studies/STUDY": "study patch STUDY --set KEY=VALUE",
    "POST /v1/studies/STUDY:VERB": "study VERB STUDY",
    "GET /v1/studies/STUDY/events": "study watch STUDY",
    "GET /v1/studies/STUDY/best": "study get STUDY",
    "GET /v1/studies/STUDY/trials": "trial ls STUDY",
    "GET /v1/studies/STUDY/trials/TRIAL": "trial get STUDY TRIAL",
    "GET /v1/studies/STUDY/trials/TRIAL/checkpoint": "best pull STUDY --trial TRIAL --to FOLDER",
    "GET /v1/studies/STUDY/PART": "study PART STUDY",
    "GET /v1/datasets": "dataset ls",
    "GET /v1/models": "model rank",
    "GET /v1/presets": "preset ls",
    "GET /v1/projects": "project ls",
    "GET /v1/tokens": "token ls",
}
_NAMES = re.compile("STUDY|TRIAL|VERB|PART")
_TEMPLATES = {
    re.compile(_NAMES.sub(lambda name: f"(?P<{name[0]}>[^/:]+)", operation)): _NAMES.sub(lambda name: rf"\g<{name[0]}>", command)
    for operation, command in _COMMANDS.items()
}


def as_commands(text: str) -> str:
    """The text with `tuneyard study ls` for `GET /v1/studies`; an operation that no command does stays."""
    return re.sub(r"`([A-Z]+ /v1/[^`]*)`", lambda found: f"`{_command(found[1])}`", text)


def _command(operation: str) -> str:
    for pattern, template in _TEMPLATES.items():
        if found := pattern.fullmatch(operation):
            return f"tuneyard {found.expand(template)}"
    return operation
