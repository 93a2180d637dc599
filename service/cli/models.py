"""`tuneyard model`: choose a base model."""

from enum import StrEnum
from typing import Annotated

import typer

from service.cli.exits import EPILOG
from service.cli.output import Format, FormatOption, emit, working
from service.cli.session import session_of

app = typer.Typer(help="Base models: show one, rank those there are.", no_args_is_help=True, epilog=EPILOG)


class Training(StrEnum):
    """What of a model is trained."""

    FULL = "full"
    LORA = "lora"
    FROZEN = "frozen"


@app.command()
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name on the hub, folder under a model root, or builtin://NAME.", show_default=False),
    ],
    batch_size: Annotated[int, typer.Option(help="Rows at once, for the estimate of memory.", min=1)] = 32,
    max_length: Annotated[int, typer.Option(help="Tokens a row, for the estimate of memory.", min=1)] = 128,
    method: Annotated[Training, typer.Option(help="What is trained, for the estimate of memory.")] = Training.FULL,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a base model. Its size, card and trainers, and the memory that training takes."""
    from service.cli.model_tables import model_table

    with session_of(context).client() as client, working("looking at the model"):
        found = client.model(name, batch_size=batch_size, max_length=max_length, method=method.value)
    emit(output, found, lambda: model_table(found))


@app.command()
def rank(
    context: typer.Context,
    task: Annotated[str | None, typer.Option(help="Kind of trainer, such as text-classification.", show_default=False)] = None,
    dataset: Annotated[str | None, typer.Option(help="Rows to try models on: dataset://NAME/FILE.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="Column to read.", show_default=False)] = None,
    label: Annotated[str | None, typer.Option(help="Column to predict.", show_default=False)] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be repeated [all where the service runs].", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Rank or list base models. With rows, by how they do on them with frozen weights."""
    from service.cli.model_tables import candidates_table

    with session_of(context).client() as client, working("trying the models"):
        found = client.models(task, dataset=dataset, text=text, label=label, names=model or ())
    emit(output, found, lambda: candidates_table(found))
