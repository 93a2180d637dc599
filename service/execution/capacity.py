"""Print what a Ray cluster holds, as JSON, for processes that have no Ray.

    python -m service.execution.capacity ADDRESS [BUNDLES]

BUNDLES is a JSON list of what trials would hold side by side: a cluster that can grow is asked to, until all of them fit.
"""

import json
import sys

import ray
from ray.autoscaler.sdk import request_resources


def main() -> int:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    if len(sys.argv) > 2:  # noqa: PLR2004 - with the bundles
        request_resources(bundles=json.loads(sys.argv[2]))
    resources = ray.cluster_resources()
    largest = max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    held = {"cpus": resources.get("CPU", 0.0), "gpus": resources.get("GPU", 0.0), "node_gpus": largest}
    sys.stdout.write(json.dumps(held) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
