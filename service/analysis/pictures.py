"""Draws in a child process, one after another, and waits for none: whoever mirrors studies asks again later."""

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import lifeline
from service.inherited import needed

_LONGEST_SECONDS = 60.0
_ATTEMPTS = 2
_ONE_AT_A_TIME = threading.Lock()


def begin(analysis: Mapping[str, Any]) -> "Future[Mapping[str, bytes]]":
    """Start to draw; the result is what `render` answers or raises. The thread is no reason for the process to stay."""
    drawing: Future[Mapping[str, bytes]] = Future()

    def act() -> None:
        try:
            with _ONE_AT_A_TIME:  # twenty studies may end together
                drawing.set_result(render(analysis))
        except Exception as error:
            drawing.set_exception(error)

    threading.Thread(target=act, name="pictures", daemon=True).start()
    return drawing


def render(analysis: Mapping[str, Any]) -> Mapping[str, bytes]:
    """PNGs under their file names. Raises RuntimeError when they cannot be drawn, or twice not within a minute."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-pictures-") as name:
        folder = Path(name)
        (folder / "analysis.json").write_text(json.dumps(analysis, allow_nan=False))
        done = _drawn(folder)
        if done.returncode:
            raise RuntimeError(f"The pictures cannot be drawn:\n{done.stderr.decode(errors='replace')[-2000:]}")
        return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def _drawn(folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """The child that has ended. A machine that is busy for once gets a second chance."""
    command = lifeline.command("service.analysis.figures", [str(folder / "analysis.json"), str(folder)])
    for _ in range(_ATTEMPTS):
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(  # noqa: S603 - our own module
                command, capture_output=True, check=False, timeout=_LONGEST_SECONDS, env=needed(os.environ)
            )
    raise RuntimeError(f"The pictures were not drawn within {_LONGEST_SECONDS:.0f} s.")
