"""First sentences of the docstrings in a library's source files, read without importing the library."""

import ast
import re
import warnings
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

_NOT_API = frozenset(
    {"tests", "test", "testing", "conftest", "examples", "benchmarks", "externals", "vendor", "thirdparty_files", "migrations"}
)
_COMPILED_DOCS = "_add_newdocs.py"
"""Where numpy keeps the docstrings of compiled functions, as calls of `add_newdoc`."""

_SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$")
_BEGINS_A_SECTION = re.compile(
    r"^\s*(?:(?:Args|Arguments|Parameters|Params|Returns?|Raises|Yields|Examples?|Notes?|Attributes|Usage)\s*:?\s*$"
    r"|:(?:param|type|returns?|rtype|raises?|arg|cvar|ivar|members|meta)\b|>>>|\.\. |-{3,}|={3,}|[-*+] |@|```)"
)
_ROLE = re.compile(r":(?:[A-Za-z]\w*:)?[a-z]\w*:`([^`]*)`")
_TARGET = re.compile(r"^(.*\S)\s*<[^>]*>$", re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|al|Eq|Fig|Ref|resp|approx)\.$")
_MARKUP = str.maketrans("", "", "`|")
_NO_CODE = re.compile(r"https?:|[{}<>=\\;@]|\.\.\.|%\w|\(\)\.")
_FEWEST_WORDS, _MOST_WORDS = 4, 60
_LETTERS_SHARE = 0.7


def sentences(module: str) -> Iterator[str]:
    """The sentences of a top-level package, file by file, in an order that depends on the files' names alone.

    Classes, functions and methods whose names begin with an underscore are passed over, and so are tests and private folders.
    Private files are read: numpy, scipy and scikit-learn keep most of what they publish in them.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{module} is not installed")
    root = Path(spec.origin).parent
    names = [path.relative_to(root) for path in root.rglob("*.py")]
    public = sorted((name for name in names if _is_public(name)), key=lambda name: _hash(name.as_posix()))
    for name in public:
        for docstring in _docstrings(root / name):
            sentence = first_sentence(docstring)
            if sentence:
                yield sentence


def first_sentence(docstring: str) -> str | None:
    """A docstring's first sentence without markup, or None where it has none of 4 to 60 words."""
    lines: list[str] = []
    for paragraph in docstring.strip().split("\n\n"):
        if not _SIGNATURE.match(" ".join(paragraph.split())):
            lines = paragraph.strip().splitlines()
            break
    text = []
    for line in lines:
        if _BEGINS_A_SECTION.match(line):
            break
        text.append(line)
    sentence = _cut(_plain(" ".join(" ".join(text).split())))
    words = sentence.split()
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    usable = _FEWEST_WORDS <= len(words) <= _MOST_WORDS and letters >= _LETTERS_SHARE * len(sentence)
    return sentence if usable and sentence.isascii() and not _NO_CODE.search(sentence) else None


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _is_public(name: Path) -> bool:
    *folders, file = name.parts
    private = any(folder.startswith("_") and folder != "_core" for folder in folders)
    return not private and not _NOT_API & {*folders, name.stem} and not file.startswith(("test_", "_test", "conftest"))


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escape sequences
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates that only look like Python
            return
    if path.name == _COMPILED_DOCS:
        yield from _compiled_docstrings(tree)
    else:
        yield from _docstrings_in(tree)


def _docstrings_in(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
                yield from _docstrings_in(child)


def _compiled_docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "add_newdoc":
            for argument in node.args[2:]:
                for part in ast.walk(argument):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def _plain(text: str) -> str:
    text = _ROLE.sub(lambda role: _TARGET.sub(r"\1", role[1]).lstrip("~!.").removeprefix("_"), text)
    text = _LINK.sub(r"\1", text).replace("**", "").replace("`_", "")
    text = re.sub(r"\*(\S(?:[^*]*\S)?)\*", r"\1", text)
    return " ".join(text.translate(_MARKUP).replace("::", ":").split())


def _cut(text: str) -> str:
    """Up to the end of the first sentence."""
    for end in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: end.start()].rstrip("\"')]")):
            return text[: end.start()].strip()
    return text.strip()
