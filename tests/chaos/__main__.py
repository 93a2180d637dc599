"""`make chaos`: many kills, and a table of what they hit and what was wrong afterwards.

python -m tests.chaos --kills 100 --seed 1
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.outcome import table
from tests.chaos.run import run, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Kill a service's processes while it runs studies.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="of the schedule; by the clock if left out")
    parser.add_argument("--keep", type=Path, help="a new folder for the service's home, kept afterwards")
    arguments = parser.parse_args()
    say(f"{arguments.kills} kills by seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="tuneyard-chaos-") as folder:
        outcome = run(arguments.keep or Path(folder), arguments.seed, arguments.kills, at_once=4)
    sys.stdout.write("\n".join(table(outcome)) + "\n")
    return 1 if outcome.findings or outcome.outlived else 0


if __name__ == "__main__":
    sys.exit(main())
