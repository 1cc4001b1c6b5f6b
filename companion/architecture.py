"""The parts of the library and their imports, read from the code."""

import ast
from pathlib import Path
from typing import Any

import pandas as pd

from companion import PROJECT

LAYERS = (
    ("errors", "registration", "signals"),
    ("inputs", "versions"),
    ("families",),
    ("records",),
    ("bank", "tuner", "analysis", "approximation"),
    ("study",),
    ("advice", "progress", "display"),
    ("measure",),
    ("devices",),
    ("cli",),
)
"""The parts of `cpadapt`, layer by layer from the bottom. A part imports only from layers below its own."""

FILES = tuple(sorted((PROJECT / "cpadapt").rglob("*.py")))
"""The library's modules."""


def module_of(file: Path) -> str:
    """The name under which a file is imported."""
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """The part of `cpadapt` that contains a module; `__init__` for the package itself."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(file: Path, *, in_functions: bool = True) -> set[str]:
    """The modules that a file imports, without what only type checkers see.

    Args:
        file: a module of the library.
        in_functions: whether to include imports inside functions.

    Raises:
        ValueError: an import is relative.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {inner for child in node.body for inner in ast.walk(child)}
        elif isinstance(node, ast.FunctionDef) and not in_functions:
            skipped |= set(ast.walk(node))
    modules: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: imports are absolute here")
            modules |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
    return modules


def part_table() -> pd.DataFrame:
    """One row for each part: `part`, `layer` (0 at the bottom), `modules`, `lines` and `about`, from its docstring."""
    rows = []
    for layer, parts in enumerate(LAYERS):
        for part in parts:
            files = [file for file in FILES if part_of(module_of(file)) == part]
            texts = [file.read_text(encoding="utf-8") for file in files]
            head = next(text for file, text in zip(files, texts, strict=True) if module_of(file) == f"cpadapt.{part}")
            rows.append(
                {
                    "part": part,
                    "layer": layer,
                    "modules": len(files),
                    "lines": sum(len(text.splitlines()) for text in texts),
                    "about": str(ast.get_docstring(ast.parse(head))).partition("\n\n")[0].replace("\n", " "),
                }
            )
    return pd.DataFrame(rows)


def import_table() -> pd.DataFrame:
    """One row for each pair of parts with imports: `importer`, `imported`, `imports` (the number of importing
    files)."""
    pairs: dict[tuple[str, str], int] = {}
    for file in FILES:
        importer = part_of(module_of(file))
        if importer == "__init__":
            continue
        imported = {part_of(module) for module in imports(file) if module.startswith("cpadapt.")}
        for other in imported - {importer}:
            pairs[importer, other] = pairs.get((importer, other), 0) + 1
    return pd.DataFrame([{"importer": a, "imported": b, "imports": n} for (a, b), n in sorted(pairs.items())])


def import_chart() -> Any:
    """The imports as a grid: importers by row, imported parts by column, both from the bottom layer up."""
    import altair as alt

    order = [part for layer in LAYERS for part in layer]
    x = alt.X("imported:N", sort=order, scale=alt.Scale(domain=order), axis=alt.Axis(orient="top", labelAngle=-90))
    y = alt.Y("importer:N", sort=order, scale=alt.Scale(domain=order))
    base = alt.Chart(import_table()).encode(x=x.title("imported"), y=y.title("importer"))
    squares = base.mark_rect(color="#555555").encode(tooltip=["importer", "imported", "imports"])
    counts = base.mark_text(color="white").encode(text="imports:Q")
    return (squares + counts).properties(
        width="container",
        height=400,
        title=alt.TitleParams("A part imports only from lower layers", frame="bounds"),
        description="A grid of the parts of cpadapt, importers by row and imported by column, from errors to cli. "
        "Every filled square lies below the diagonal; its number is that of the files that import.",
    )
