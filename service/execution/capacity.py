"""Print what a Ray cluster holds, as JSON, for processes that have no Ray: `python -m service.execution.capacity ADDRESS`."""

import json
import sys

import ray


def main() -> int:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    resources = ray.cluster_resources()
    sys.stdout.write(json.dumps({"cpus": resources.get("CPU", 0.0), "gpus": resources.get("GPU", 0.0)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
