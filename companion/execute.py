"""Executes the book's chapters: `python -m companion.execute FOLDER SCRIPT... [-p NAME=VALUE]...`.

The libraries that the chapters need are imported once. Then each chapter runs in a fork of that process, two at a
time, so no chapter sees what another one changes. The outputs are the same as papermill's, which imports the libraries
again for each notebook. Then come the book's numbers that no chapter has asked for.
"""

import argparse
import ast
import importlib
import json
import sys
from collections.abc import Iterable
from io import TextIOBase
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_output

from companion.forks import Job, in_forks
from companion.notebooks import read, text
from companion.quantities import CHAPTERS, to_compute


class _Publisher(DisplayPublisher):
    def publish(self, data: Any, metadata: Any = None, *args: Any, **kwargs: Any) -> None:
        _Shell.instance().outputs.append(new_output("display_data", data=data, metadata=metadata or {}))


class _Hook(DisplayHook):
    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        count = self.prompt_count
        result = new_output("execute_result", data=format_dict, metadata=md_dict or {}, execution_count=count)
        _Shell.instance().outputs.append(result)

    def write_output_prompt(self) -> None:
        """Print nothing, because the result has its number."""

    def finish_displayhook(self) -> None:
        self._is_active = False


class _Shell(InteractiveShell):
    """A shell that keeps the outputs of a cell in order, as a notebook does."""

    displayhook_class = _Hook
    display_pub_class = _Publisher
    outputs: list[Any]


class _Stream(TextIOBase):
    def __init__(self, name: str, shell: _Shell) -> None:
        self.name, self.shell = name, shell

    def write(self, text: str) -> int:
        last = self.shell.outputs[-1] if self.shell.outputs else {}
        if last.get("name") == self.name:
            last["text"] += text
        elif text:
            self.shell.outputs.append(new_output("stream", name=self.name, text=text))
        return len(text)


def execute(script: Path, made: Path, parameters: dict[str, str]) -> None:
    """Run a notebook in this process, which must do nothing else, and write it with its outputs.

    Args:
        script: the notebook, as `companion.notebooks` reads it.
        made: the file to write.
        parameters: those that the cell tagged `parameters` declares are inserted after it, as by papermill.

    Raises:
        SystemExit: a cell failed. The message has the notebook's name and the traceback.
    """
    notebook = read(script)
    declared = [place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    for place in declared:
        statements = ast.parse(notebook.cells[place].source).body
        names = [ast.unparse(each.target) for each in statements if isinstance(each, ast.AnnAssign)]
        if given := {name: value for name, value in parameters.items() if name in names}:
            source = "# Parameters\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())
            # Shown or not, as those that it replaces.
            tags = ["injected-parameters", *set(notebook.cells[place].metadata["tags"]) - {"parameters"}]
            notebook.cells.insert(place + 1, new_code_cell(source, metadata={"tags": tags}))
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    InteractiveShell.clear_instance()  # a library may have made one before the fork
    shell = _Shell.instance()
    streams = sys.stdout, sys.stderr
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shell.outputs = cell.outputs
        sys.stdout, sys.stderr = (_Stream(name, shell) for name in ("stdout", "stderr"))
        result = shell.run_cell(cell.source, store_history=True)
        sys.stdout, sys.stderr = streams
        cell.execution_count = result.execution_count
        if not result.success:
            shown = "".join(output.get("text", "") for output in cell.outputs)
            sys.exit(f"{script}: this cell failed:\n{cell.source}\n{shown}")
    nbformat.write(notebook, made)


def execute_all(scripts: list[Path], folder: Path, parameters: dict[str, str], then: Iterable[Job] = ()) -> list[str]:
    """Run notebooks into a folder, each in its own process, and return those that failed.

    Args:
        scripts: in the order in which they begin, so the longest should be first.
        folder: where they are written.
        parameters: as `execute`.
        then: what is done after they have begun, in processes too.
    """
    modules = set()
    for script in scripts:
        for statement in ast.parse(text(script)).body:
            if isinstance(statement, ast.ImportFrom):
                modules.add(str(statement.module))
            elif isinstance(statement, ast.Import):
                modules |= {name.name for name in statement.names}
    for module in sorted(modules):
        importlib.import_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = [
        (str(script), execute, (script, folder / f"{script.stem}.ipynb", parameters)) for script in scripts
    ]
    return in_forks([*jobs, *then])


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("folder", type=Path)
    reader.add_argument("scripts", type=Path, nargs="+")
    reader.add_argument("-p", dest="parameters", action="append", default=[], type=lambda given: given.split("=", 1))
    given = reader.parse_args()
    # Beside the longest chapter, the numbers that no chapter has asked for.
    if failed := execute_all(given.scripts, given.folder, dict(given.parameters), to_compute(CHAPTERS)):
        sys.exit(f"failed: {', '.join(failed)}")
