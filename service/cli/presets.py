"""`tuneyard preset`: search spaces to start from. They come with the installation: no service is asked."""

from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from service.cli.exits import EPILOG, ExitCode
from service.cli.output import Format, FormatOption, emit, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search_spaces import Parameter
    from search_spaces.presets import Preset
    from service.cli.layout import Rows

app = typer.Typer(help="Presets: search spaces to start from.", no_args_is_help=True, epilog=EPILOG)


@app.command("ls")
def list_presets(output: FormatOption = Format.TABLE) -> None:
    """List all presets."""
    from search_spaces.presets import presets

    found = list(presets().values())
    emit(output, found, lambda: _presets_table(found))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The preset, as TASK/METHOD.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a preset searches, and where its ranges are from."""
    from difflib import get_close_matches

    from search_spaces.presets import presets

    found = presets().get(name)
    if found is None:
        meant = "".join(f"did you mean {one}? " for one in get_close_matches(name, presets(), n=1))
        say(f"error: There is no preset {name!r}: {meant}`tuneyard preset ls` lists those there are.", style="red")
        raise typer.Exit(ExitCode.NOT_FOUND)
    say(f"a study names it as space: {{preset: {name}}}")
    emit(output, found, lambda: _preset_table(found))


def _presets_table(found: "Sequence[Preset]") -> "Rows":
    """One line a preset."""
    from service.cli.layout import Rows

    table = Rows("preset", "searches", "what for", flow=("searches", "what for"))
    for preset in found:
        table.add_row(preset.name, ", ".join(preset.space), preset.description)
    return table


def _preset_table(preset: "Preset") -> "Rows":
    """The trainer's settings, then one line a parameter."""
    from service.cli.layout import Rows

    table = Rows("key", "value", "from", flow=("value", "from"))
    for key, value in preset.trainer.items():
        shown = ", ".join(f"{name}: {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(key, shown, "")
    for key, parameter in preset.space.items():
        table.add_row(key, _range(parameter), "; ".join(preset.sources[key]))
    return table


def _range(parameter: "Parameter") -> str:
    """The values of a parameter, for people."""
    from search_spaces import CategoricalParameter, ConstantParameter, FloatParameter, IntParameter

    match parameter:
        case FloatParameter() | IntParameter():
            return f"{parameter.low:g} to {parameter.high:g}{', log' if parameter.log else ''}"
        case CategoricalParameter():
            return " or ".join(str(choice) for choice in parameter.choices)
        case ConstantParameter():
            return str(parameter.value)
        case _:
            assert_never(parameter)
