"""The data of a figure as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altair as alt
import pandas as pd
from docutils import nodes

from companion import chart_data
from companion.sphinx import figure

TABLE = pd.DataFrame({"what": ["a, b", "c"], "at": [1.06, 2.12], "size": [1, 2], "mean": [0.125, None]})


def chart(title: str = "") -> dict[str, Any]:
    base, size = alt.Chart(TABLE), alt.X("at:Q", title="scalars")
    told = [alt.Tooltip("what:N", title="adapter"), alt.Tooltip("size:Q", title="scalars")]
    points = base.mark_point().encode(size, alt.Y("mean:Q", title="accuracy"), alt.Color("what:N"), tooltip=told)
    spread = alt.Chart(pd.DataFrame({"what": ["c"], "seed": [7]})).mark_tick().encode(alt.X("seed:Q"), detail="what:N")
    floor = alt.Chart(pd.DataFrame({"said": ["floor"], "mean": [0.0625]})).encode(y="mean:Q")
    even = alt.Chart(pd.DataFrame({"even": [0]})).mark_rule().encode(y="even:Q")
    layers = (
        even,
        points,
        spread,
        floor.mark_rule().encode(tooltip=[alt.Tooltip("said:N", title="adapter"), "mean:Q"]),
        floor.mark_text().encode(text="said:N"),
        base.transform_calculate(x2="datum.at + 1").mark_rect().encode(size, x2="x2:Q"),
        base.mark_bar().encode(x="mean(mean):Q"),
    )
    spec: dict[str, Any] = alt.layer(*layers).properties(title=title, description="Made up.").to_dict()
    return spec


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_rows_are_those_of_the_marks_under_the_titles_that_are_seen() -> None:
    """No line to compare with, no text, nothing that is computed in the chart, and no place where a size is said."""
    assert read(chart_data.as_csv([chart()])) == [
        ["adapter", "scalars", "accuracy", "what", "seed", "mean"],
        ["a, b", "1", "0.125", "", "", ""],
        ["c", "2", "", "", "", ""],
        ["", "", "", "c", "7", ""],
        ["floor", "", "", "", "", "0.0625"],
    ]


def test_of_several_charts_each_says_which_it_is() -> None:
    found = read(chart_data.as_csv([chart("SST-2"), chart("RTE")]))
    assert [row[0] for row in found] == ["chart", *["SST-2"] * 4, *["RTE"] * 4]


def page(*drawings: str) -> nodes.document:
    from docutils.utils import new_document

    made = new_document("page")
    for number, drawn in enumerate(drawings):
        made += nodes.figure("", nodes.container("", nodes.raw("", drawn, format="html")), ids=[f"id{number}"])
    return made


def app(folder: Path, numbers: Sequence[int], builder: str = "html") -> Any:
    found = {"notebooks/size": {"figure": {f"id{k}": (number,) for k, number in enumerate(numbers)}}}
    env = SimpleNamespace(toc_fignumbers=found)
    return SimpleNamespace(builder=SimpleNamespace(name=builder), env=env, outdir=str(folder))


def test_each_figure_with_a_chart_has_a_file_beside_the_page_and_a_link(tmp_path: Path) -> None:
    made = page(figure(chart()), "<figure>a drawing</figure>")
    chart_data.offer(app(tmp_path, (31, 32)), made, "notebooks/size")
    first, second = made.findall(nodes.figure)
    assert 'href="size-31.csv"' in first.astext()
    assert "csv" not in second.astext()
    assert read((tmp_path / "notebooks" / "size-31.csv").read_text())[1][0] == "a, b"
    assert len(list(tmp_path.rglob("*.csv"))) == 1


def test_a_drawing_may_bring_its_table(tmp_path: Path) -> None:
    drawing = '<div><script type="application/json">{"a": 1}</script><script type="text/csv">a,b\n1,2\n</script></div>'
    chart_data.offer(app(tmp_path, (19,)), page(drawing), "notebooks/size")
    assert read((tmp_path / "notebooks" / "size-19.csv").read_text()) == [["a", "b"], ["1", "2"]]


def test_what_is_printed_has_no_files_beside_it(tmp_path: Path) -> None:
    made = page(figure(chart()))
    chart_data.offer(app(tmp_path, (1,), "singlehtml"), made, "notebooks/size")
    assert "csv" not in made.astext()
    assert list(tmp_path.iterdir()) == []
