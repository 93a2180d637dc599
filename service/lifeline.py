"""Children that compute something for their parent, and end with it, however it ends.

    python -m service.lifeline PARENT_PID MODULE [ARGUMENT ...]

The child itself asks the kernel for it before it does anything else: between `fork` and `exec`, a process of many threads may
do next to nothing. The thread that starts a child must wait for it, as the kernel counts the end of that thread as the parent's.
"""

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def command(module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command line that runs a module in a child of this process."""
    return [sys.executable, "-m", "service.lifeline", str(os.getpid()), module, *arguments]


def end_with_parent(number: signal.Signals) -> None:
    """Have this process sent that signal when its parent ends. Only Linux does; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def main() -> None:
    parent, module = int(sys.argv[1]), sys.argv[2]
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before that
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
