"""A Sphinx extension: below each numbered figure that shows data is a link to these, as CSV.

They are what its charts draw, or what another drawing has as a script of the type `text/csv`. The files lie beside the
pages and are named after page and figure: `encoder-11.csv` is that of Fig. 11, on `encoder.html`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes

_SPEC = re.compile(r'<script type="application/json">(.*?)</script>', re.S)
_TABLE = re.compile(r'<script type="text/csv">(.*?)</script>', re.S)

SAYS_NOTHING = ("text", "tooltip", "order", "opacity")
"""Channels whose fields do not say where a mark is or what it stands for."""


def rows(spec: Mapping[str, Any]) -> pd.DataFrame:
    """What a chart draws: a row for each datum of its marks.

    Its columns are what a mark's tooltip says and then where it is drawn, each by the title that a reader sees. Texts
    repeat what other marks show, and rules without a tooltip are lines to compare with, so both are left out.

    Args:
        spec: the chart in Vega-Lite, with its data by name, as Altair writes it.
    """
    titles: dict[str, dict[str, str]] = {}
    layers = [
        (data, encoding)
        for data, mark, encoding in _layers(spec)
        if mark != "text" and (mark != "rule" or "tooltip" in encoding)
    ]
    told = [(data, encoding.get("tooltip", [])) for data, encoding in layers]
    drawn = [
        (data, definition)
        for data, encoding in layers
        for channel, definition in encoding.items()
        if channel not in SAYS_NOTHING
    ]
    for data, definition in told + drawn:
        known = titles.setdefault(data, {})
        for one in definition if isinstance(definition, list) else [definition]:
            field, title = one.get("field"), one.get("title") or one.get("field")
            if field and "aggregate" not in one and field not in known and title not in known.values():
                known[field] = title
    # A field that is in no row is computed while the chart is drawn.
    tables = [
        pd.DataFrame(spec["datasets"][data])
        .reindex(columns=list(known))
        .dropna(axis=1, how="all")
        .rename(columns=known)
        for data, known in titles.items()
    ]
    return pd.concat([table.convert_dtypes() for table in tables])


def _layers(
    spec: Mapping[str, Any], data: str = "", encoding: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The name of its data, the mark and the encoding of each layer, with what it has from the layers around it."""
    data = spec.get("data", {}).get("name", data)
    encoding = {**(encoding or {}), **spec.get("encoding", {})}
    for layer in spec.get("layer", ()):
        yield from _layers(layer, data, encoding)
    if "mark" in spec:
        yield data, spec["mark"]["type"], encoding


def as_csv(specs: list[dict[str, Any]]) -> str:
    """The rows of a figure's charts; of several, each chart's with its title in front."""
    tables = [rows(spec) for spec in specs]
    if len(specs) > 1:
        for spec, table in zip(specs, tables, strict=True):
            table.insert(0, "chart", spec["title"])
    return pd.concat(tables).to_csv(index=False)


def offer(app: Any, page: nodes.document, name: str) -> None:
    """Write the data of a page's figures, and a link below each."""
    if app.builder.name != "html":
        return  # in the PDF there is no file to link
    beside = Path(app.outdir, name)
    beside.parent.mkdir(parents=True, exist_ok=True)
    for before in beside.parent.glob(f"{beside.name}-*.csv"):
        before.unlink()
    numbers = app.env.toc_fignumbers.get(name, {}).get("figure", {})
    for figure in page.findall(nodes.figure):
        drawings = [drawn.astext() for drawn in figure.findall(nodes.raw)]
        specs = [json.loads(spec) for drawn in drawings if 'class="chart"' in drawn for spec in _SPEC.findall(drawn)]
        tables = [as_csv(specs)] if specs else [table for drawn in drawings for table in _TABLE.findall(drawn)]
        if tables:
            number = ".".join(map(str, numbers[figure["ids"][0]]))
            path = beside.with_name(f"{beside.name}-{number}.csv")
            path.write_text(tables[0], encoding="utf-8")
            link = f'<p class="figure-data"><a href="{path.name}" download>Data (CSV)</a></p>'
            figure.append(nodes.legend("", nodes.raw("", link, format="html")))


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("doctree-resolved", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
