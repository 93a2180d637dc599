"""Bodies that would take a parser's time, memory or trust, and expressions that would run something."""

import json
from collections.abc import Iterator

from tests.hostile.attack import Attack, attack, posting, sending
from tests.hostile.target import simulated

_YAML = {
    "aliases": "a: &a [x]\n" + "\n".join(f"{chr(98 + at)}: &{chr(98 + at)} [{', '.join(['*' + chr(97 + at)] * 9)}]" for at in range(9)),  # noqa: E501 - a bomb of ten lines
    "an anchor of itself": "a: &a [*a]", "a merge key": "a: &a {b: 1}\nc:\n  <<: *a",
    "a Python object": "a: !!python/object/apply:os.system [id]",
    "a Python name": "a: !!python/name:os.system ''", "a Python module": "!!python/module:os ''",
    "another new object": "!!python/object/new:type {}",
    "a timestamp": "a: !!timestamp 2030-01-02", "binary": "a: !!binary " + "QQ" * 1000, "a set": "!!set {a, b}",
    "depth": "[" * 200_000,
    "depth of blocks": "- " * 200_000, "depth of keys": "? " * 200_000, "a huge integer": "seed: " + "9" * 500_000,
    "a huge hexadecimal": "seed: 0x" + "f" * 900_000, "an infinite number": "seed: .inf", "no number": "seed: .nan",
    "a huge float": "seed: 1e999999",
    "very many values": "a: [" + "1," * 400_000 + "1]", "very many keys": "".join(f"k{at}: 1\n" for at in range(90_000)),
    "very many anchors": "".join(f"- &a{at} 1\n" for at in range(60_000)),
    "very many tags": "".join(f"%TAG !{at}! x\n" for at in range(50_000)) + "--- 1",
    "very many documents": "--- 1\n" * 100_000, "a tag of a megabyte": "!<" + "%41" * 300_000 + "> 1", "NUL": 'name: "\\0"',
    "a control": "a: \x1b[2J",
    "UTF-16": "name: x".encode("utf-16").decode("latin-1"), "a folded scalar": "a: >\n" + " x\n" * 300_000,
}  # fmt: skip
_JSON = {
    "depth": "[" * 400_000, "depth of objects": '{"a":' * 100_000, "a huge number": '{"seed": ' + "9" * 900_000 + "}",
    "an infinite number": '{"seed": 1e999}',
    "no number": '{"seed": NaN}', "a key twice": '{"name": "a", "name": "b"}', "half a surrogate": '{"name": "\\ud800"}',
    "NUL": '{"name": "\\u0000"}',
    "a string that does not end": '"' + "\\" * 500_001, "very many values": "[" + "1," * 400_000 + "1]",
    "UTF-16": '{"a": 1}'.encode("utf-16").decode("latin-1"),
    "no object": "null", "a number": "1", "a string": '"x"', "__proto__": '{"__proto__": {"isAdmin": true}}',
}  # fmt: skip
EXPRESSIONS = (
    "__class__ == 1", "values.rate.__class__ == 1", "().__class__.__bases__[0].__subclasses__() == 1",
    "__import__('os').system('id') == 0",
    "eval('1') == 1", "exec('1') == 1", "open('/etc/passwd').read() == 'x'", "getattr(values, 'rate') == 1", "globals() == 1",
    "[x for x in [1]] == 1",
    "(lambda: 1)() == 1", "{1: 2} == 1", "{1, 2} == 1", "f'{values}' == 'x'", "'{0.__class__}'.format(1) == 'x'",
    "'%s' % 1 == 'x'", "(yield 1) == 1",
    "(x := 1) == 1", "values['rate'] == 1", "'abc'[0] == 'a'", "9**9**9**9 > 1", "2**(2**(2**20)) > 1", "1 << 10**9 > 1",
    "'a' * 10**9 == 'a'", "[1] * 10**9 == 1",
    "(" * 240 + "1" + ")" * 240 + " > 0", "-" * 480 + "1 > 0", "not " * 120 + "True", "1" * 499, "0x" + "f" * 490 + " > 0",
    "1e999 > 0", "1j == 1", "b'x' == 1",
    "... == 1", "\uff45val('1') == 1", "\uff3f\uff3fclass\uff3f\uff3f == 1", "max(*[1]) == 1", "min(key=1) == 1",
    "print(1) == 1", "await x", "x" * 501, "\0", "1 is 1",
    "1 if 1 else 2", "abs(abs) == 1", "log(0) == 0 and sqrt(-1) == 0", "values.rate ** -1e308 ** 9 < 0", "a.b.c.d.e.f == 1",
    "'\\N{LATIN SMALL LETTER A}' * 9 == 1",
)  # fmt: skip
_RUNS_CODE = (
    {"trust_remote_code": True}, {"auto_map": {"AutoModel": "x.Y"}}, {"runtime_env": {"pip": ["x"]}}, {"env_vars": {"A": "b"}},
    {"command": "id"},
    {"callbacks": ["os.system"]}, {"__class__": "os.system"}, {"init_hook": "import os"},
    {"collate_fn": "!!python/name:os.system"},
)  # fmt: skip
_PATHS = ("/v1/studies", "/v1/studies:preview")


def attacks() -> Iterator[Attack]:
    for path in _PATHS:
        for name, text in _YAML.items():
            yield attack(f"YAML, {name}: {path}", sending(text.encode("latin-1"), "application/yaml", path), 400, 413, 422)
        for name, text in _JSON.items():
            yield attack(f"JSON, {name}: {path}", sending(text.encode("latin-1"), "application/json", path), 400, 413, 422)
    for text in EXPRESSIONS:
        yield attack(f"the constraint {text[:40]!r}", posting(simulated(constraints=[text])), 400, 422)
        yield attack(f"the outcome {text[:40]!r}", posting(simulated(outcomes=[text])), 400, 422)
        yield attack(f"the formula {text[:40]!r}", posting(simulated(trainer=_simulating(text))), 400, 422)
    for keys in _RUNS_CODE:
        yield attack(f"{json.dumps(keys)} in a definition", posting({**simulated(), **keys}), 422)
        yield attack(f"{json.dumps(keys)} in a trainer", posting(simulated(trainer={**_simulating("rate"), **keys})), 422)
        resources = simulated(resources={"cpus_per_trial": 1, **keys})
        yield attack(f"{json.dumps(keys)} in resources", posting(resources), 422)
    yield attack("another media type", sending(b"<xml/>", "application/xml"), 415)
    yield attack("a form", sending(b"name=x", "application/x-www-form-urlencoded"), 415)
    yield attack("a name with an escape sequence", posting(simulated(name="\x1b]0;x\x07")), 422)
    yield attack("a name with a newline", posting(simulated(name="a\nb")), 422)
    yield attack("a name that is markup", posting(simulated(name="<script>alert(1)</script>")), 422)


def _simulating(formula: str) -> dict[str, object]:
    return {"kind": "simulated", "epochs": 1, "metrics": {"validation/loss": formula}, "values": {"rate": 0.1}}
