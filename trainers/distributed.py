"""One trial in several processes, one for each GPU: each computes its share of every batch, and all make the same steps.

The trainer that a worker sees starts the processes and asks them by lines of JSON; in each of them runs the trainer of the task,
told its rank. Gradients are added up after a batch's backward passes and not during them, as `DistributedDataParallel` does: so a
process that ran out of memory can say so before the others wait for it, and layers may thaw from epoch to epoch.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, assert_never

import torch
from pydantic import TypeAdapter
from torch import Tensor

from trainers.configs import TrainerConfig
from trainers.contract import Goal, Interruption, Report, Trainer, TrainerError, TrialContext, make_trainer

_POLL_SECONDS = 0.1
_LAST_WORDS_SECONDS = 3.0
"""How long a process that only lost its connection is not believed: the one that caused it may be about to say why."""
_STOP_SECONDS = 5.0
_PAUSE = "pause"
_PR_SET_PDEATHSIG = 1
_PATIENCE = timedelta(days=7)
"""How long processes wait for each other: the first one alone validates, exports and tests. A dead one is noticed at once."""


class Distributed:
    """A trainer whose work is done by `context.processes` processes on this machine; they end with this object or its process."""

    def __init__(self, config: TrainerConfig, context: TrialContext) -> None:
        """Start the processes. Raises TrainerError, as the trainer of the task does."""
        self._context = replace(context, threads=max(1, context.threads // context.processes))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines: list[Any] = []
        self._lifeline: int | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="tuneyard-ranks-"))
        # Its other end is closed when this process ends, however it ends, and the ranks see that.
        listening, self._lifeline = os.pipe()
        try:
            for rank in range(context.processes):
                self._start(rank, config, listening)
            self.facts: Mapping[str, Any] = self._ask("start")
        except BaseException:
            self.close()
            raise
        finally:
            os.close(listening)

    def reports(self) -> Iterator[Report]:
        """Yield the first process's reports; returns early when asked to pause."""
        while (found := self._ask("report")) is not None:
            yield Report(**found)

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs; random states of each process."""
        self._ask("save", str(directory))

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote with the same number of processes."""
        self._ask("load", str(directory))

    def export(self, directory: Path) -> None:
        """Write what a user pulls."""
        self._ask("export", str(directory))

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong."""
        found: Mapping[str, Any] = self._ask("analysis")
        return found

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        found: Mapping[str, float] = self._ask("test", str(exported))
        return found

    def close(self) -> None:
        """End the processes; a second time does nothing."""
        if self._lifeline is not None:
            os.close(self._lifeline)
        self._lifeline = None
        for process in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for lines in self._lines:
            lines.close()
        self._lines = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def __del__(self) -> None:
        with suppress(AttributeError):  # it may not even have got its folder
            self.close()

    def _start(self, rank: int, config: TrainerConfig, lifeline: int) -> None:
        ours, theirs = socket.socketpair()
        context = replace(self._context, interruption=lambda: None)
        task = {
            "rank": rank,
            "folder": str(self._folder),
            "config": config.model_dump(mode="json"),
            "context": {
                **asdict(replace(context, goal=None)),
                "interruption": None,
                "goal": context.goal and asdict(context.goal),
            },
        }
        # Its rendezvous is a file, and not a port that somebody else may take or listen to.
        self._processes.append(
            subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "trainers.distributed", str(theirs.fileno()), str(lifeline)],
                pass_fds=[theirs.fileno(), lifeline],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(context.threads), "GLOO_SOCKET_IFNAME": "lo"},
            )
        )
        theirs.close()
        ours.settimeout(_POLL_SECONDS)
        lines = _Lines(ours)
        self._lines.append(lines)
        lines.send(task)

    def _ask(self, what: str, argument: str | None = None) -> Any:
        """The first process's answer, once all have answered. Raises TrainerError, RuntimeError for a process that ended."""
        if what != "start":
            for lines in self._lines:
                lines.send([what, argument])
        answers: dict[int, Any] = {}
        while len(answers) < len(self._lines):
            self._pass_on_interruption()
            for rank, lines in enumerate(self._lines):
                if rank not in answers and (answer := lines.receive()) is not None:
                    answers[rank] = answer
                    if "error" in answer:  # the others may wait for it for ever
                        self._give_up(answer)
                if rank not in answers and self._processes[rank].poll() is not None:
                    code = self._processes[rank].returncode
                    self._give_up({"error": f"process {rank} of {len(self._processes)} ended with {code}", "reason": None})
        return answers[0]["answer"]

    def _give_up(self, answer: Mapping[str, Any]) -> NoReturn:
        """Raise what went wrong: not that the connection to another process broke, where that one says why it ended."""
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while answer["reason"] is None and time.monotonic() < deadline:
            later = [found for lines in self._lines if (found := lines.receive()) is not None and found.get("reason")]
            answer = later[0] if later else answer
            if all(process.poll() is not None for process in self._processes):
                deadline = min(deadline, time.monotonic() + _POLL_SECONDS)  # what they said is on its way
        self.close()
        raise _as_error(answer)

    def _pass_on_interruption(self) -> None:
        asked = self._context.interruption()
        if asked is not None:
            (self._folder / _PAUSE).touch()


class _Lines:
    """JSON lines over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def send(self, value: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever waits for the answer sees that nobody is there
            self._connection.sendall(json.dumps(value, default=str).encode() + b"\n")  # paths as text

    def receive(self) -> Any:
        """The next value; None when there is none within the socket's time limit, or the other end is closed."""
        while b"\n" not in self._received:
            try:
                found = self._connection.recv(1 << 20)
            except TimeoutError:
                return None
            except ConnectionResetError:
                found = b""
            if not found:
                return None
            self._received += found
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        self._connection.close()


def _as_error(answer: Mapping[str, Any]) -> Exception:
    if answer["reason"] is not None:
        return TrainerError(answer["reason"], answer["error"])
    return RuntimeError(answer["error"])


class _Processes:
    """The ranks over accelerate."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        return rows[self.rank :: self.count]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        from accelerate.utils import reduce  # noqa: PLC0415 - two seconds that only trials in several processes pay

        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            # One message for all, as each costs a round trip.
            flat = reduce(torch.cat([tensor.detach().flatten() for tensor in same]), "sum")
            for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def any(self, *, flag: bool) -> bool:
        from accelerate import PartialState  # noqa: PLC0415 - the same
        from accelerate.utils import reduce  # noqa: PLC0415 - the same

        return bool(reduce(torch.tensor([float(flag)], device=PartialState().device), "sum").item())

    def from_first(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list  # noqa: PLC0415 - the same

        (found,) = broadcast_object_list([value])
        return found


def _serve(lines: _Lines) -> None:
    """Be one rank until the other end hangs up."""
    task = lines.receive()
    context, rank = task["context"], task["rank"]
    count = context["processes"]
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    pause = Path(task["folder"]) / _PAUSE
    on_gpu = context["device"] != "cpu"
    surroundings = TrialContext(
        cache=Path(context["cache"]),
        sources={name: Path(path) for name, path in context["sources"].items()},
        models={name: Path(path) for name, path in context["models"].items()},
        threads=context["threads"],
        device=f"cuda:{rank}" if on_gpu else "cpu",
        processes=count,
        goal=context["goal"] and Goal(**context["goal"]),
        interruption=lambda: Interruption.PAUSE if pause.exists() else None,
    )
    config: TrainerConfig = TypeAdapter(TrainerConfig).validate_json(json.dumps(task["config"]))
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=(Path(task["folder"]) / "rendezvous").as_uri(),
        timeout=_PATIENCE,
        rank=rank,
        world_size=count,
    )
    try:
        served = _Rank(config, surroundings, _Processes(rank, count))
        answer = served.start()
        while True:
            lines.send({"answer": answer})
            asked = lines.receive()
            if asked is None:
                return
            answer = served.answer(*asked)
    except TrainerError as error:
        lines.send({"error": str(error), "reason": error.reason})
    except Exception as error:
        lines.send({"error": f"process {rank}: {error!r}", "reason": None})


class _Rank:
    """The trainer of the task in one of the processes."""

    def __init__(self, config: TrainerConfig, context: TrialContext, processes: _Processes) -> None:
        self._config = config
        self._context = context
        self._processes = processes

    def start(self) -> Any:
        from accelerate import PartialState  # noqa: PLC0415 - see `_Processes`

        state = PartialState(cpu=self._context.device == "cpu")
        with state.main_process_first():  # which prepares the rows for all
            self._trainer: Trainer = make_trainer(self._config, self._context, self._processes)
        # From the same new weights on, each draws its own dropout.
        torch.manual_seed(self._config.seed + self._processes.rank)
        self._reports = self._trainer.reports()
        return dict(self._trainer.facts) if self._processes.rank == 0 else None

    def answer(self, what: str, argument: str | None) -> Any:
        """What the first process answers; the others take part where they have to."""
        is_first, folder = self._processes.rank == 0, Path(argument or ".")
        match what:
            case "report":
                report = next(self._reports, None)
                return report and asdict(report)
            case "save":
                return self._trainer.save(folder)
            case "load":
                self._trainer.load(folder)
                self._reports = self._trainer.reports()
                return None
            case "export":
                return self._trainer.export(folder) if is_first else None
            case "analysis":
                return dict(self._trainer.analysis()) if is_first else None
            case "test":
                return dict(self._trainer.test(folder)) if is_first else None
            case _:
                assert_never(what)  # type: ignore[arg-type]  # asked by `Distributed` alone


def _end_with(lifeline: int) -> None:
    """End this process when its parent's end of the pipe is closed, also while it computes or waits for other ranks."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end_with_parent() -> None:
    """Be killed with the process that started this one, also in the middle of native code, which no thread gets a word into."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_parent()
    _end_with(int(sys.argv[2]))
    _serve(_Lines(socket.socket(fileno=int(sys.argv[1]))))
    os._exit(0)  # without waiting for ranks that may be gone
