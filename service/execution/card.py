"""The model card that goes with every export: where these weights come from and how good they were."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from service.domain.trial import Report
from service.execution.assignment import Assignment


def write_card(folder: Path, assignment: Assignment, report: Report, facts: Mapping[str, Any]) -> None:
    """Write `README.md` for people and `tuneyard.json` for programs beside the exported weights."""
    record = {
        "study": assignment.study_id,
        "study_name": assignment.study_name,
        "trial": assignment.number,
        "attempt": assignment.attempt,
        "report": report.number,
        "epoch": report.epoch,
        "objective": {"metric": assignment.metric, "direction": assignment.direction},
        "metrics": dict(report.metrics),
        "parameters": dict(assignment.parameters),
        **({"parent": {"trial": assignment.parent, "report": assignment.inherited}} if assignment.inherited else {}),
        "configuration": dict(assignment.configuration),
        "facts": dict(facts),
        "definition": dict(assignment.definition),
        "exported_at": asdict(report)["at"].isoformat(),
    }
    (folder / "tuneyard.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(_card(assignment, report, record))


_PIPELINE_TAGS = {"causal-lm": "text-generation", "seq2seq": "text2text-generation"}
"""The Hugging Face hub's name of a task, where ours is another."""
_ADAPTER = (
    "The weights are merged: they load as any others. The adapter alone is in `adapter/`, for the base model named above with "
    "`peft` (`PeftModel.from_pretrained`)."
)
_MEASURED = "The validation metrics were measured in 32-bit floating point on exactly these weights."
_TESTED = "The test metrics were measured once, at the end of the trial, on rows that the search never saw."


def _card(assignment: Assignment, report: Report, record: Mapping[str, Any]) -> str:
    kind = assignment.configuration["kind"]
    is_tested = any(name.startswith("test/") for name in report.metrics)
    model = assignment.configuration.get("model")
    base = {"library_name": "transformers", "pipeline_tag": _PIPELINE_TAGS.get(kind, kind), "base_model": model}
    front = {**(base if model else {}), "tags": ["tuneyard"]}
    made = f"`{model}`, fine-tuned" if model else f"`{kind}`, which has no model, run"
    sections = [
        f"---\n{_yaml(front)}---",
        f"# {assignment.study_name}",
        (
            f"{made} by Tuneyard: study `{assignment.study_id}`, trial "
            f"{assignment.number}, epoch {report.epoch:g} (the trial's best by `{assignment.metric}`, {assignment.direction})."
        ),
        "## Metrics\n\n| metric | value |\n|---|---|\n"
        + "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(report.metrics.items())),
        *([_MEASURED] if model else []),
        *([_TESTED] if is_tested else []),
        *(["## Adapter", _ADAPTER] if assignment.configuration.get("lora") else []),
        *([_copied(assignment)] if assignment.inherited else []),
        f"## Configuration\n\n```yaml\n{_yaml(assignment.configuration)}```",
        f"## Rows and model\n\n```yaml\n{_yaml(record['facts'])}```",
        f"## Study\n\n```yaml\n{_yaml(assignment.definition)}```",
    ]
    return "\n\n".join(sections) + "\n"


def _copied(assignment: Assignment) -> str:
    return (
        f"The trial began with the weights of trial {assignment.parent} at report {assignment.inherited}, and trained on with "
        f"the configuration below; `GET /v1/studies/{assignment.study_id}/lineage` has what they were trained with before."
    )


def _yaml(value: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True)
