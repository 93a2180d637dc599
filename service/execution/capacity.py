"""Print what a Ray cluster and each machine of it holds, as JSON, for processes that have no Ray.

    python -m service.execution.capacity ADDRESS [BUNDLES]

BUNDLES is a JSON list of what trials would hold side by side: a cluster that can grow is asked to, until all of them fit.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources


def main() -> int:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    if len(sys.argv) > 2:  # noqa: PLR2004 - with the bundles
        request_resources(bundles=json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(held_by(ray.nodes())) + "\n")
    return 0


def held_by(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """CPUs and GPUs of all nodes that live, and of each that trials can be on, from `ray.nodes()`."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    machines = [{"cpus": one["CPU"], "gpus": one.get("GPU", 0.0)} for one in alive if one.get("CPU")]
    return {
        "cpus": sum(one["cpus"] for one in machines),
        "gpus": sum(one["gpus"] for one in machines),
        "nodes": machines,
    }


if __name__ == "__main__":
    sys.exit(main())
