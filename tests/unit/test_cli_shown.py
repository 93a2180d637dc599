"""What somebody else wrote steers nobody's terminal."""

import io
import json

import pytest
import yaml
from pydantic import BaseModel
from rich.table import Table

from service.cli import output
from service.cli.output import Format, console, emit, say, shown, working

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9b31m\u202ec\x7f\r[bold]d[/bold] :smile: [link=http://evil.example]e[/link]"


class Terminal(io.StringIO):
    """A person looks at it."""

    def isatty(self) -> bool:
        return True


class _Named(BaseModel):
    name: str


def a_table() -> Table:
    table = Table("name")
    table.add_row(HOSTILE)
    return table


def test_what_a_terminal_obeys_is_spelt_out() -> None:
    assert shown("a\x1b[31mb\x9bc\u202e") == "a\\x1b[31mb\\x9bc\\u202e"
    assert shown("one\ttwo\nthree é 中") == "one\ttwo\nthree é 中"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_table_passes_no_control_character_of_its_texts_on(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = stream()
    console(file).print(a_table())
    said = file.getvalue()
    assert "\x1b[2J" not in said
    assert not {"\x07", "\x9b", "\u202e", "\x7f"} & set(said)
    assert "\\x1b[2J" in said


def test_a_table_takes_texts_for_texts() -> None:
    file = io.StringIO()
    console(file).print(a_table())
    assert "[bold]d[/bold] :smile: [link=http://evil.example]e[/link]" in file.getvalue()


def test_a_message_is_spelt_out_too(capsys: pytest.CaptureFixture[str]) -> None:
    say("error: \x1b[2J")
    assert capsys.readouterr().err == "error: \\x1b[2J\n"


def test_json_and_yaml_hold_it_all_and_steer_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for form, read in ((Format.JSON, json.loads), (Format.YAML, yaml.safe_load)):
        emit(form, _Named(name=HOSTILE), a_table)
        said = capsys.readouterr().out
        assert not output._CONTROL.search(said)
        assert read(said) == {"name": HOSTILE}


def test_what_takes_long_gives_a_sign_of_life_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, said in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with working("trying the models"):
            pass
        assert ("trying the models ..." in stream.getvalue()) is said
