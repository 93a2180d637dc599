"""What no code of ours does: unpickle, run code that comes with a model or a definition, or load anything but safetensors."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_RUNS = {"eval", "exec", "compile", "__import__"}


@cache
def trees() -> dict[str, ast.Module]:
    """The code that is installed, by its file's name."""
    found = [path for room in ("service", "trainers", "search_spaces") for path in sorted((ROOT / room).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in found}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for file, tree in trees().items():
        for node in ast.walk(tree):
            yield f"{file}:{getattr(node, 'lineno', 0)}", node


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call with the name that is called, as `torch.load`."""
    for place, node in nodes():
        if isinstance(node, ast.Call):
            yield place, node, ast.unparse(node.func)


def keyword(call: ast.Call, name: str) -> object:
    return next(
        (ast.literal_eval(one.value) for one in call.keywords if one.arg == name and isinstance(one.value, ast.Constant)), None
    )


def test_nothing_imports_what_unpickles() -> None:
    imported = [
        (place, name)
        for place, node in nodes()
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if name.partition(".")[0] in _PICKLES
    ]
    assert imported == []


@pytest.mark.parametrize("called", ["torch.load", "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle"])
def test_nothing_is_loaded_that_may_be_a_pickle(called: str) -> None:
    found = [place for place, call, name in calls() if name == called and keyword(call, "allow_pickle") is not False]
    assert found == []


def test_nothing_runs_a_text_as_code() -> None:
    assert [place for place, _, name in calls() if name in _RUNS] == []


def test_no_process_is_started_through_a_shell() -> None:
    assert [place for place, call, name in calls() if keyword(call, "shell") or name in {"os.system", "os.popen"}] == []


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
    named = [(place, ast.unparse(call)) for place, call, name in calls() if name == "yaml.load"]
    assert named
    assert [call for _, call in named if "_Loader" not in call and "_CoreLoader" not in call and "_LOADER" not in call] == []
    assert [place for place, _, name in calls() if name in {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}] == []
