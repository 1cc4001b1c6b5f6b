"""Charts say what the tables say: valid Vega-Lite, the palette, the right points."""

import json
from typing import Any

import pandas as pd
import pytest

from cpadapt.charts import FAMILY_COLOURS, FURTHER_COLOURS, curve_chart, frontier_chart

ROWS = [
    # label, family, size, parameters, rate, seed, dev, eval
    ("head", "head", 0, 0, None, 0, 0.50, 0.52),
    ("head", "head", 0, 0, None, 1, 0.52, 0.54),
    ("cp", "cp", 4, 400, 1e-3, 0, 0.60, 0.99),
    ("cp", "cp", 4, 400, 1e-3, 1, 0.60, 0.97),
    ("cp", "cp", 4, 400, 4e-3, 0, 0.70, 0.62),
    ("cp", "cp", 4, 400, 4e-3, 1, 0.72, 0.66),
    ("lora", "lora", 1, 768, 1e-3, 0, 0.71, 0.70),
]


def table(*rows: tuple[Any, ...], study: str = "s") -> pd.DataFrame:
    names = ["label", "family", "size", "parameters", "learning_rate", "seed", "dev_accuracy", "eval_accuracy"]
    made = pd.DataFrame(rows, columns=names)
    return made.assign(
        study=study, backbone="tiny", task="sst2", diverged_at=None, id=[f"{study}{k}" for k in range(len(made))]
    )


def drawn(spec: dict[str, Any], layer: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a layer of a chart draws."""
    return list(spec["datasets"][layer["data"]["name"]])


def as_dict(chart: Any) -> dict[str, Any]:
    """Vega-Lite, which altair checks against its schema, as JSON has it."""
    spec: dict[str, Any] = json.loads(json.dumps(chart.to_dict(validate=True), allow_nan=False))
    return spec


def test_the_frontier_shows_means_and_every_seed_behind_them() -> None:
    spec = as_dict(frontier_chart(table(*ROWS)))
    seeds, means = spec["layer"]
    assert [(row["family name"], row["seed"], row["accuracy"]) for row in drawn(spec, seeds)] == [
        ("head only", 0, 0.52), ("head only", 1, 0.54), ("CP", 0, 0.62), ("CP", 1, 0.66), ("LoRA", 0, 0.70),
    ]  # fmt: skip
    assert {row["family name"]: (row["parameters"], row["accuracy"]) for row in drawn(spec, means)} == {
        "head only": (0, pytest.approx(0.53)), "CP": (400, pytest.approx(0.64)), "LoRA": (768, 0.70),
    }  # fmt: skip
    for layer in (seeds, means):
        assert layer["encoding"]["x"]["field"] == "parameters"
        assert layer["encoding"]["y"]["field"] == "accuracy"
        assert layer["encoding"]["color"]["scale"] == {
            "domain": ["head only", "LoRA", "CP"],
            "range": [FAMILY_COLOURS[name] for name in ("head", "lora", "cp")],
        }


@pytest.mark.parametrize(
    ("labels", "domain", "colours"),
    [
        (["head"], ["head only"], [FAMILY_COLOURS["head"]]),
        (["cp"], ["CP"], [FAMILY_COLOURS["cp"]]),
        (["cp", "lora"], ["LoRA", "CP"], [FAMILY_COLOURS["lora"], FAMILY_COLOURS["cp"]]),
        (["melora", "cp", "cp long"], ["CP", "cp long", "melora"], [FAMILY_COLOURS["cp"], *FURTHER_COLOURS[:2]]),
    ],
)
def test_a_family_has_its_colour_whatever_stands_beside_it(
    labels: list[str], domain: list[str], colours: list[str]
) -> None:
    rate = {"head": None}
    rows = [(label, "cp", 1, 100, rate.get(label, 1e-3), seed, 0.6, 0.6) for label in labels for seed in (0, 1)]
    spec = as_dict(frontier_chart(table(*rows)))
    assert spec["layer"][0]["encoding"]["color"]["scale"] == {"domain": domain, "range": colours}
    assert len(drawn(spec, spec["layer"][0])) == 2 * len(labels)


def test_seeds_are_those_of_the_cell_itself() -> None:
    """Of two studies with one cell, each shows the seeds at the rate that its own dev chose."""
    one = table(("cp", "cp", 4, 400, 1e-3, 0, 0.9, 0.8), ("cp", "cp", 4, 400, 4e-3, 0, 0.6, 0.5), study="one")
    two = table(("cp", "cp", 4, 400, 1e-3, 0, 0.6, 0.4), ("cp", "cp", 4, 400, 4e-3, 0, 0.9, 0.7), study="two")
    spec = as_dict(frontier_chart(pd.concat([one, two], ignore_index=True)))
    assert [row["accuracy"] for row in drawn(spec, spec["layer"][0])] == [0.8, 0.7]


def test_runs_that_diverged_leave_a_chart_whole() -> None:
    rows = table(*ROWS, ("cp", "cp", 9, 900, 1e-3, 0, None, None))
    spec = as_dict(frontier_chart(rows))
    assert [row["accuracy"] for row in drawn(spec, spec["layer"][1]) if row["size"] == 9] == [None]


def test_curves_are_a_line_a_run() -> None:
    evaluations = pd.DataFrame(
        [
            {"id": name, "label": label, "family": label, "size": 1, "learning_rate": rate, "seed": 0,
             "step": step, "dev_accuracy": 0.5 + step / 100}
            for name, label, rate in (("a", "head", None), ("b", "cp", 1e-3))
            for step in (10, 20)
        ]
    )  # fmt: skip
    spec = as_dict(curve_chart(evaluations))
    assert spec["mark"]["type"] == "line"
    assert spec["encoding"]["detail"]["field"] == "id"
    assert spec["encoding"]["color"]["scale"]["domain"] == ["head only", "CP"]
    assert [(row["id"], row["step"], row["dev_accuracy"]) for row in drawn(spec, spec)] == [
        ("a", 10, 0.6), ("a", 20, 0.7), ("b", 10, 0.6), ("b", 20, 0.7),
    ]  # fmt: skip
