"""What is shown of banks in training."""

import contextlib
import typing
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cpadapt.bank.trainer import Progress


class Display(typing.Protocol):
    """Where a process shows what it trains."""

    def bank(self, title: str, steps: int) -> contextlib.AbstractContextManager[Progress]:
        """Show a bank while it trains.

        Args:
            title: says which.
            steps: optimizer steps in all.

        Returns:
            A context that gives what to call with the number of steps done.
        """
        ...

    def say(self, text: str) -> None:
        """Show a line that stays."""
        ...


class Terminal:
    """Shows one bank at a time on standard error.

    Args:
        quiet: show no progress bar. There is none anyway if the output is not a terminal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._quiet = quiet

    @contextlib.contextmanager
    def bank(self, title: str, steps: int) -> Iterator[Progress]:
        """A progress bar."""
        with progress_bar(self._console, self._quiet) as bar:
            shown = bar.add_task(title, total=steps, word="starting")
            yield lambda step, word: bar.update(shown, completed=step, word=word)

    def say(self, text: str) -> None:
        """A line below."""
        self._console.print(text, markup=False, highlight=False)


def progress_bar(console: Console, quiet: bool) -> ProgressBar:
    """A progress bar of optimizer steps, whose tasks have a field `word`."""
    return ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[word]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
