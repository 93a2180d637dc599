"""What no code of ours does: unpickle, run code that comes with a model or a definition, or load anything but safetensors."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_LOADS = re.compile(r"torch\.(?:\w+\.)*load|numpy\.load|pandas\.read_pickle")
_SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_RUNS = {"eval", "exec", "compile", "__import__"}
COMPUTED = "computed"
"""In place of what an argument is, where only a run would tell."""


@cache
def trees() -> dict[str, ast.Module]:
    """The code that is installed, by its file's name."""
    found = [path for room in ("service", "trainers", "search_spaces") for path in sorted((ROOT / room).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in found}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for file, tree in trees().items():
        for node in ast.walk(tree):
            yield f"{file}:{getattr(node, 'lineno', 0)}", node


def imported(tree: ast.Module) -> Mapping[str, str]:
    """What each name that is imported stands for: of `from torch import load as read`, `read` is `torch.load`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def named(node: ast.AST, names: Mapping[str, str]) -> str:
    """What an expression names, by what was imported."""
    first, dot, rest = ast.unparse(node).partition(".")
    return names.get(first, first) + dot + rest


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call with the name that is called, as `torch.load`."""
    for file, tree in trees().items():
        names = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{file}:{node.lineno}", node, named(node.func, names)


def keyword(call: ast.Call, name: str) -> object:
    """What is given under this name: a constant, None where nothing is, or `COMPUTED`, which may be anything."""
    given = next((one.value for one in call.keywords if one.arg == name), None)
    if given is None:
        return None
    return given.value if isinstance(given, ast.Constant) else COMPUTED


def pickles(tree: ast.Module) -> list[int]:
    """The lines of what reads files that may be pickles, called or handed on, but for arrays without any."""
    names = imported(tree)
    safe = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and named(node.func, names) == "numpy.load" and keyword(node, "allow_pickle") is False
    }
    uses = (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and node not in safe)
    return [node.lineno for node in uses if _LOADS.fullmatch(named(node, names))]


def shells(tree: ast.Module) -> list[int]:
    """The lines of calls that start a process through a shell, or may."""
    names = imported(tree)
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in made
        if keyword(call, "shell") not in {None, False}
        or named(call.func, names) in _SHELLS
        or (named(call.func, names).startswith("subprocess.") and any(one.arg is None for one in call.keywords))
    ]


def test_nothing_imports_what_unpickles() -> None:
    found = [
        (place, name)
        for place, node in nodes()
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if name.partition(".")[0] in _PICKLES
    ]
    assert found == []


def test_nothing_is_loaded_that_may_be_a_pickle() -> None:
    assert {file: pickles(tree) for file, tree in trees().items() if pickles(tree)} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import torch; torch.load(x)", "from torch import load; load(x)", "from torch import load as read; read(x)",
        "import torch as t; t.load(x)", "import torch; torch.jit.load(x)", "from torch import jit; jit.load(x)",
        "import torch.jit as j; j.load(x)", "import torch; torch.hub.load(x)", "import torch; map(torch.load, x)",
        "import numpy as np; np.load(x)", "import numpy as np; np.load(x, allow_pickle=y)", "from numpy import load; load(x)",
        "import pandas as pd; pd.read_pickle(x)",
    ],
)  # fmt: skip
def test_whatever_reads_pickles_is_seen(code: str) -> None:
    assert pickles(ast.parse(code)) == [1]


@pytest.mark.parametrize(
    "code", ["import numpy; numpy.load(x, allow_pickle=False)", "from a import load; load(x)", "json.load(x)"]
)
def test_what_reads_none_is_not_taken_for_it(code: str) -> None:
    assert pickles(ast.parse(code)) == []


def test_nothing_runs_a_text_as_code() -> None:
    assert [place for place, _, name in calls() if name in _RUNS] == []


def test_no_process_is_started_through_a_shell() -> None:
    assert {file: shells(tree) for file, tree in trees().items() if shells(tree)} == {}


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run(x, shell=True)", "subprocess.run(x, shell=y)", "from subprocess import Popen; Popen(x, shell=1)",
        "subprocess.run(x, **y)", "import os; os.system(x)", "from os import popen; popen(x)", "subprocess.getoutput(x)",
    ],
)  # fmt: skip
def test_whatever_starts_a_shell_is_seen(code: str) -> None:
    assert shells(ast.parse(code)) == [1]
    assert shells(ast.parse("subprocess.run(x, shell=False)")) == []


def test_code_that_comes_with_a_model_is_never_trusted() -> None:
    loads = [(place, call) for place, call, name in calls() if name.endswith(".from_pretrained")]
    assert len(loads) >= 5
    assert [place for place, call in loads if keyword(call, "trust_remote_code") is not False] == []
    assert [place for place, call in loads if keyword(call, "local_files_only") is not True] == []


def test_weights_are_read_from_safetensors_alone() -> None:
    loads = [
        (place, call)
        for place, call, name in calls()
        if name.endswith(".from_pretrained") and not any(part in name for part in ("Tokenizer", "AutoConfig", "Processor"))
    ]
    assert loads
    assert [place for place, call in loads if keyword(call, "use_safetensors") is not True] == []


def test_yaml_is_read_with_a_loader_of_its_own() -> None:
    loads = [(place, ast.unparse(call)) for place, call, name in calls() if name == "yaml.load"]
    assert loads
    assert [call for _, call in loads if "_Loader" not in call and "_CoreLoader" not in call and "_LOADER" not in call] == []
    assert [place for place, _, name in calls() if name in {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}] == []
