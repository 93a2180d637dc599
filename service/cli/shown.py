"""What rich prints, without what texts from elsewhere might tell the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from service.cli.output import shown


class ShowingConsole(Console):
    """Goes over all that it is about to print. Rich's own control codes come apart from texts, and stay."""

    def render_str(self, text: str, **options: Any) -> Text:  # before it is measured
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))
