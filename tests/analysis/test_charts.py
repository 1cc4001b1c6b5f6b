"""Charts say what the tables say: valid Vega-Lite that compiles in silence, the palette, the right points."""

import itertools
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from cpadapt.analysis.charts import (
    FURTHER_COLOURS,
    SHAPES,
    VEGA_LITE,
    VEGA_LITE_MIME,
    budget_chart,
    curve_chart,
    enable,
    frontier_chart,
    gain_chart,
    interval_chart,
    part_chart,
    rate_chart,
    recovery_chart,
    smallest_effect_chart,
    spread_chart,
    task_name,
    theme,
)
from cpadapt.analysis.charts import table as shown
from cpadapt.analysis.frontier import best_under_budget, frontier
from cpadapt.families import FAMILIES, cp, lora
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD_COLOUR

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
        study=study,
        backbone="tiny",
        task="sst2",
        protocol="p",
        weights="w",
        teacher=None,
        scale=2.0,
        warmup_steps=0,
        majority_rate=0.52,
        diverged_at=None,
        id=[f"{study}{k}" for k in range(len(made))],
    )


PUBLISHED = pd.DataFrame(
    [
        {"source": "a paper", "second_hand": True, "backbone": "opt-1.3b", "task": "sst2", "label": family,
         "family": family, "size": 2, "parameters": 393_216, "accuracy": 0.93, "sd": None, "seeds": 3}
        for family in ("lora", "cp")
    ]
)  # fmt: skip
EVALUATIONS = pd.DataFrame(
    [
        {"id": name, "task": "sst2", "label": label, "family": label, "size": size, "learning_rate": rate, "seed": 0,
         "step": step, "dev_accuracy": 0.5 + step / 100}
        for name, label, size, rate in (("a", "head", 0, None), ("b", "cp", 1, 1e-3))
        for step in (10, 20)
    ]
)  # fmt: skip


RESPONSE = pd.DataFrame(
    [
        {"label": label, "size": size, "parameters": 90 * size, "learning_rate": rate, "times": 1e4 * rate,
         "runs": 3, "mean": 0.7 + rate, "error": 0.01, "dev": 0.7}
        for label, size in (("lora", 10), ("cp", 1), ("cp", 10))
        for rate in (1e-4, 1e-3)
    ]
)  # fmt: skip

RECOVERY = pd.DataFrame(
    [
        {"task": "sst2", "teacher": teacher, "label": label, "size": size, "parameters": parameters, "draws": draws,
         "mean": mean, "low": low, "high": high}
        for teacher, label, size, parameters, draws, mean, low, high in (
            ("LoRA 1", "lora", 1, 57_600, 4, 0.98, 0.961, 0.999),
            ("LoRA 1", "cp", 1, 5220, 4, -0.1, -0.3, 0.1),
            ("CP 4", "lora", 1, 57_600, 1, 0.5, np.nan, np.nan),
            ("CP 4", "cp", 1, 5220, 4, 0.25, 0.2, 0.3),
        )
    ]
)  # fmt: skip

EFFECTS = pd.DataFrame(
    [
        {"task": task, "seeds": seeds, "effect": times / seeds}
        for task, times in (("rte", 0.2), ("mine", 0.1))
        for seeds in (3, 10, 100)
    ]
)

CONTRASTS = pd.DataFrame(
    [
        {"group": group, "what": what, "mean": 0.01, "low": -0.01, "high": 0.03, "seeds": 5}
        for group in ("SST-2", "RTE")
        for what in ("LoRA 1 − CP 11", "LoRA 4 − CP 44")
    ]
)

GAINS = pd.DataFrame(
    [
        {"what": what, "label": label, "size": size, "mean": (1 + k) / 100, "low": k / 100, "high": (2 + k) / 100}
        for what in ("SST-2", "RTE")
        for k, (label, size) in enumerate((("cp", 1), ("cp", 17), ("lora", 1)))
    ]
)

BY_BUDGET = pd.DataFrame(
    [
        {"label": label, "size": size, "parameters": scalars, "mean": 0.02, "low": 0.01, "high": 0.03}
        for label, size, scalars in (("lora", 1, 9216), ("lora", 2, 18432), ("cp", 1, 972), ("lokr", 1, 960))
    ]
)

RUNS = pd.DataFrame(
    [
        {"over": over, "label": label, "size": size, "run": run, "accuracy": 0.8 + run / 100}
        for over, runs in (("seeds", 4), ("draws", 2))
        for label, size in (("head", 0), ("cp", 11))
        for run in range(runs)
    ]
)


PARTS = pd.DataFrame(
    [
        {"part": part, "task": task, "sd": times * sd}
        for part, sd in (("weights with order", 0.003), ("initial weights", 0.0))
        for task, times in (("sst2", 1), ("rte", 2))
    ]
)


def drawn(spec: dict[str, Any], layer: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a layer of a chart draws."""
    return list(spec["datasets"][layer["data"]["name"]])


def as_dict(chart: Any) -> dict[str, Any]:
    """Vega-Lite, which altair checks against its schema, as JSON has it."""
    spec: dict[str, Any] = json.loads(json.dumps(chart.to_dict(validate=True), allow_nan=False))
    return spec


def layers(spec: dict[str, Any], mark: str, **has: Any) -> list[dict[str, Any]]:
    """The layers of this mark whose mark has these properties."""
    return [
        layer
        for layer in spec["layer"]
        if layer["mark"]["type"] == mark and all(layer["mark"].get(name) == value for name, value in has.items())
    ]


def parts(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The seeds, the means and the floor of a frontier."""
    (seeds,) = layers(spec, "point", size=35)
    (means,) = (layer for layer in layers(spec, "point", size=90, filled=True))
    (floor,) = layers(spec, "rule", strokeDash=[6, 4])
    return seeds, means, floor


def signals(spec: dict[str, Any]) -> dict[str, Any]:
    """Its parameters, by name."""
    return {param["name"]: param for param in spec.get("params", [])}


CHARTS = {
    "frontier": lambda: frontier_chart(table(*ROWS)),
    "with a slider": lambda: frontier_chart(table(*ROWS), budget_slider=True),
    "gains": lambda: gain_chart(GAINS, "points over the head alone"),
    "gains by budget": lambda: budget_chart(BY_BUDGET, "points over the head alone"),
    "with published figures": lambda: frontier_chart(table(*ROWS), published=PUBLISHED),
    "with both": lambda: frontier_chart(table(*ROWS), budget_slider=True, published=PUBLISHED),
    "a floor alone": lambda: frontier_chart(table(*ROWS[:2])),
    "a floor and published figures": lambda: frontier_chart(table(*ROWS[:2]), published=PUBLISHED),
    "no floor": lambda: frontier_chart(table(*ROWS[2:]), budget_slider=True),
    "all diverged": lambda: frontier_chart(table(*ROWS, ("cp", "cp", 9, 900, 1e-3, 0, None, None))),
    "curves": lambda: curve_chart(EVALUATIONS),
    "rates": lambda: rate_chart(RESPONSE, floor=0.6),
    "rates, all diverged": lambda: rate_chart(RESPONSE.assign(mean=np.nan, error=np.nan), floor=0.6),
    "smallest effects": lambda: smallest_effect_chart(EFFECTS, wanted=0.005),
    "intervals": lambda: interval_chart(CONTRASTS, "LoRA − CP, points", margin=0.01),
    "spread": lambda: spread_chart(RUNS),
    "parts": lambda: part_chart(PARTS),
    "students": lambda: recovery_chart(RECOVERY),
}


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("version", [VEGA_LITE, "6.4"])
@pytest.mark.slow
def test_a_chart_compiles_describes_itself_and_needs_no_network(
    name: str, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = as_dict(CHARTS[name]())
    assert spec["width"] == "container"
    assert re.fullmatch(r"[A-Z].{40,}\.", spec["description"])
    addresses = re.findall(r"https?://[^\"]*", json.dumps(spec))
    assert addresses == [spec["$schema"]]
    for width in (560, 300):
        svg = vl_convert.vegalite_to_svg(spec | theme() | {"width": width}, vl_version=version)
        assert "NaN" not in svg
        assert "undefined" not in svg
        # The names of differences and causes stand beside them, wherever an axis of numbers stands else.
        beside = 130 if name in ("intervals", "parts") else 80
        assert float(re.search(r'width="([\d.]+)"', svg)[1]) <= width + beside
    assert capfd.readouterr().err == ""


def test_enabled_charts_carry_the_theme_and_a_version_that_jupyterlab_draws() -> None:
    import altair

    active = altair.theme.active
    try:
        enable()
        bundle = altair.renderers.get()(frontier_chart(table(*ROWS)).to_dict())
        spec = bundle[VEGA_LITE_MIME]
        assert spec["$schema"].endswith(f"/v{VEGA_LITE}.json")
        assert bundle["text/plain"] == spec["description"]
        assert spec["config"] == json.loads(json.dumps(theme()["config"]))
        assert spec["config"]["background"] is None
        assert "currentColor" in json.dumps(spec["config"])
    finally:
        altair.theme.enable(active)
        altair.renderers.enable("default")


def test_a_table_has_no_index_and_numbers_to_the_right() -> None:
    html = shown(pd.DataFrame({"a": ["1,200", "−7.5 ± 0.1"], "b": ["LoRA 1", "2"], "c": [0.5, 1]})).data
    cells = re.findall(r'<(t[hd]) style="text-align: (\w+)">(.*?)</', html)
    right, left = "right", "left"
    assert cells == [
        ("th", right, "a"), ("th", left, "b"), ("th", right, "c"),
        ("td", right, "1,200"), ("td", left, "LoRA 1"), ("td", right, "0.5"),
        ("td", right, "−7.5 ± 0.1"), ("td", left, "2"), ("td", right, "1.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "side"),
    [
        (["0.3", "–"], "right"),
        (["+0.3 (−0.1 to 0.7)", "0.5"], "left"),
        (["0.1–0.7", "2.0 ± 0.1", "(1, 2)", "1e-05", "−1,000.5"], "right"),
        (["e", "-"], "left"),
        (["–", "−"], "left"),
        (["e5", "1"], "left"),
        (["12", "1 x"], "left"),
        ([], "left"),
    ],
)
def test_a_column_of_numbers_has_a_number_and_no_word(cells: list[str], side: str) -> None:
    html = shown(pd.DataFrame({"head": pd.Series(cells, dtype=str)})).data
    assert set(re.findall(r'style="text-align: (\w+)"', html)) == {side}
    missing = shown(pd.DataFrame({"head": [0.5, None], "word": ["a", None]})).data
    assert re.findall(r'style="text-align: (\w+)"', missing) == ["right", "left"] * 3


def test_the_frontier_shows_means_seeds_behind_them_and_a_floor() -> None:
    spec = as_dict(frontier_chart(table(*ROWS)))
    seeds, means, floor = parts(spec)
    assert [(row["family name"], row["seed"], row["accuracy"]) for row in drawn(spec, seeds)] == [
        ("CP", 0, 0.62), ("CP", 1, 0.66), ("LoRA", 0, 0.70),
    ]  # fmt: skip
    assert {row["cell"]: (row["parameters"], row["accuracy"]) for row in drawn(spec, means)} == {
        "CP 4": (400, pytest.approx(0.64)), "LoRA 1": (768, 0.70),
    }  # fmt: skip
    assert [(row["cell"], row["accuracy"]) for row in drawn(spec, floor)] == [("head only", pytest.approx(0.53))]
    assert "x" not in floor["encoding"]
    for layer in (seeds, means):
        assert layer["encoding"]["x"]["field"] == "parameters"
        assert layer["encoding"]["x"]["scale"]["type"] == "log"
    for layer in (seeds, means, floor):
        assert layer["encoding"]["y"]["field"] == "accuracy"
        assert layer["encoding"]["color"]["scale"] == {
            "domain": ["head only", "LoRA", "CP"],
            "range": [HEAD_COLOUR, lora.COLOUR, cp.COLOUR],
        }
    assert spec["description"].endswith("Highest of each: LoRA 1 70.0%, CP 4 64.0%, head only 53.0%.")


def test_seeds_light_up_with_their_cell() -> None:
    spec = as_dict(frontier_chart(table(*ROWS)))
    seeds, means, _ = parts(spec)
    pointed = signals(spec)["hovered"]["select"]
    assert (pointed["type"], pointed["on"], pointed["fields"]) == ("point", "pointerover", ["study", "cell"])
    first, *_ = seeds["encoding"]["opacity"]["condition"]
    assert (first["param"], first["empty"], first["value"]) == ("hovered", False, 1)
    assert seeds["encoding"]["opacity"]["value"] < 0.5
    named = {(row["study"], row["cell"]) for row in drawn(spec, means)}
    assert {(row["study"], row["cell"]) for row in drawn(spec, seeds)} == named


def test_each_task_of_a_chart_has_a_shape_of_its_own() -> None:
    runs = pd.concat([table(*ROWS).assign(task=task) for task in ("sst2", "rte", "theirs")])
    spec = as_dict(frontier_chart(runs))
    for layer in parts(spec)[:2]:
        assert layer["encoding"]["shape"]["scale"] == {"domain": ["rte", "sst2", "theirs"], "range": list(SHAPES[:3])}
    assert len(set(SHAPES)) == len(SHAPES)


def test_tasks_are_called_by_their_titles() -> None:
    assert {name: spec.title or name for name, spec in TASKS.items()} == {name: task_name(name) for name in TASKS}
    assert (task_name("sst2"), task_name("agnews"), task_name("toy-reading")) == ("SST-2", "AG News", "toy-reading")


LADDER = [
    ("lora", "lora", 1, 768, 1e-3, 0, 0.7, 0.80),
    ("lora", "lora", 2, 1536, 1e-3, 0, 0.7, 0.75),
    ("cp", "cp", 1, 96, 1e-3, 0, 0.7, 0.60),
    ("cp", "cp", 2, 192, 1e-3, 0, 0.7, 0.70),
    ("cp", "cp", 4, 384, 1e-3, 0, 0.7, 0.65),
    ("cp", "cp", 8, 768, 1e-3, 0, 0.7, None),
]


def said(spec: dict[str, Any], place: int) -> list[str]:
    """The text on the chart with the slider at this place."""
    spec = json.loads(json.dumps(spec))
    signals(spec)["place"]["value"] = place
    svg = vl_convert.vegalite_to_svg({**spec, "width": 560}, vl_version=VEGA_LITE)
    return re.findall(r">((?:LoRA|CP)[ :][^<]+)<", svg)


@pytest.mark.slow
def test_the_slider_names_the_best_cell_under_the_budget() -> None:
    rows = table(*LADDER)
    spec = as_dict(frontier_chart(rows, budget_slider=True))
    slider, counts = signals(spec)["place"], [96, 192, 384, 768, 1536]
    assert signals(spec)["budget"]["expr"] == f"{counts}[place]"
    assert (slider["bind"]["input"], counts[slider["value"]]) == ("range", 768)  # LoRA's first rank
    assert (slider["bind"]["min"], slider["bind"]["max"], slider["bind"]["step"]) == (0, len(counts) - 1, 1)
    assert said(spec, 0) == ["CP 1: 60.0 %, 96 scalars", "LoRA: none fits"]
    assert said(spec, 2) == ["CP 2: 70.0 %, 192 scalars", "LoRA: none fits"]
    best, names = frontier(rows), {"lora": "LoRA", "cp": "CP"}
    for place, budget in enumerate(counts):
        expected = {
            f"{names[row.label]} {row.size}: {100 * row.eval_mean:.1f} %, {row.parameters:,} scalars"
            for row in best_under_budget(best, budget).itertuples()
        }
        assert {text for text in said(spec, place) if "none" not in text} == expected


def test_treads_are_the_best_so_far_up_to_the_next_size() -> None:
    spec = as_dict(frontier_chart(table(*LADDER), budget_slider=True))
    (treads,) = (layer for layer in layers(spec, "rule") if "x2" in layer["encoding"])
    found = {row["cell"]: (row["best so far"], row["until"]) for row in drawn(spec, treads)}
    assert {name: found[name] for name in ("CP 1", "CP 2", "CP 4", "LoRA 1", "LoRA 2")} == {
        "CP 1": (0.60, 192), "CP 2": (0.70, 384), "CP 4": (0.70, 768), "LoRA 1": (0.80, 1536), "LoRA 2": (0.80, 1536),
    }  # fmt: skip


def test_treads_are_whole_again_when_the_slider_comes_back() -> None:
    (treads,) = (
        layer
        for layer in layers(as_dict(frontier_chart(table(*LADDER), budget_slider=True)), "rule")
        if "x2" in layer["encoding"]
    )
    calculated = [step["as"] for step in treads["transform"] if "calculate" in step]
    assert treads["encoding"]["x2"]["field"] in calculated
    assert not set(calculated) & set(drawn(as_dict(frontier_chart(table(*LADDER), budget_slider=True)), treads)[0])


@pytest.mark.parametrize(("commonest", "line"), [(0.5, True), (0.1, False), (None, False)])
def test_the_commonest_answer_is_a_line_that_flattens_nothing(commonest: float | None, line: bool) -> None:
    spec = as_dict(frontier_chart(table(*ROWS).assign(majority_rate=commonest)))
    assert len(layers(spec, "rule", strokeDash=[2, 3])) == line
    said = [row["said"] for layer in layers(spec, "text") for row in drawn(spec, layer) if "said" in row]
    assert said == {0.5: ["commonest answer, 50.0 %"], 0.1: ["↓ commonest answer, 10.0 %"], None: []}[commonest]


def test_just_below_head_only_the_commonest_answers_name_is_under_its_line() -> None:
    low = ("cp", "cp", 1, 96, 1e-3, 0, 0.60, 0.40)

    def sides(*rows: tuple[Any, ...]) -> list[str]:
        spec = as_dict(frontier_chart(table(*rows).assign(majority_rate=0.5)))
        named = [layer for layer in layers(spec, "text") if any("said" in row for row in drawn(spec, layer))]
        return [layer["mark"]["baseline"] for layer in named]

    assert sides(*ROWS, low) == ["top"]
    assert sides(*ROWS) == ["bottom"], "nothing is lower, so there is no room under it"


def test_a_line_has_its_name_where_it_is_its_familys_only_one() -> None:
    spec = as_dict(frontier_chart(table(*ROWS)))
    named = [
        row["family name"] for layer in layers(spec, "text") for row in drawn(spec, layer) if "family name" in row
    ]
    assert sorted(named) == ["CP", "LoRA", "head only"]
    assert parts(spec)[1]["encoding"]["color"]["legend"] is None
    two = as_dict(frontier_chart(pd.concat([table(*ROWS), table(*ROWS, study="other")])))
    assert parts(two)[1]["encoding"]["color"]["legend"] is not None


def test_cells_over_the_budget_fade() -> None:
    spec = as_dict(frontier_chart(table(*ROWS), budget_slider=True))
    _, means, _ = parts(spec)
    faded = means["encoding"]["opacity"]
    (over,) = faded["condition"]
    assert "datum.parameters > budget" in over["test"]
    assert over["value"] < faded["value"] == 1
    assert "budget" not in signals(as_dict(frontier_chart(table(*ROWS))))


def test_published_figures_are_hollow_named_and_can_be_hidden() -> None:
    spec = as_dict(frontier_chart(table(*ROWS), published=PUBLISHED))
    (theirs,) = layers(spec, "point", filled=False)
    assert theirs["mark"]["strokeDash"] == [2, 2]
    assert {row["values"] for row in drawn(spec, theirs)} == {"published (second-hand)"}
    box = signals(spec)["published"]
    assert (box["value"], box["bind"]["input"]) == (False, "checkbox")
    assert [condition["param"] for condition in theirs["encoding"]["opacity"]["condition"]] == ["published"]
    assert theirs["encoding"]["opacity"]["value"] == 0
    assert "published (second-hand), on OPT-1.3B" in " ".join(spec["title"]["text"])
    ours = {name for layer in parts(spec) for name in [layer["data"]["name"]]}
    assert theirs["data"]["name"] not in ours


@pytest.mark.parametrize(
    ("labels", "domain", "colours"),
    [
        (["head"], ["head only"], [HEAD_COLOUR]),
        (["cp"], ["CP"], [cp.COLOUR]),
        (["cp", "lora"], ["LoRA", "CP"], [lora.COLOUR, cp.COLOUR]),
        (["theirs", "cp", "cp long"], ["CP", "cp long", "theirs"], [cp.COLOUR, *FURTHER_COLOURS[:2]]),
    ],
)
def test_a_family_has_its_colour_whatever_stands_beside_it(
    labels: list[str], domain: list[str], colours: list[str]
) -> None:
    rate = {"head": None}
    rows = [(label, "cp", 1, 100, rate.get(label, 1e-3), seed, 0.6, 0.6) for label in labels for seed in (0, 1)]
    spec = as_dict(frontier_chart(table(*rows)))
    assert {
        json.dumps(layer["encoding"]["color"]["scale"]) for layer in spec["layer"] if "color" in layer["encoding"]
    } == {json.dumps({"domain": domain, "range": colours})}


def linear(colour: str) -> np.ndarray:
    """A CSS colour as linear sRGB."""
    channels = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# Machado, Oliveira and Fernandes (2009), at full severity, for linear sRGB.
VISIONS = {
    "normal": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB."""
    x, y, z = TO_XYZ @ np.clip(rgb, 0, 1) / (0.9505, 1, 1.089)
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("vision", VISIONS)
def test_families_differ_in_colour_to_every_vision(vision: str) -> None:
    """By 15 units of L*a*b*; some 2 can just be told apart side by side."""
    seen = {name: lab(VISIONS[vision] @ linear(family.COLOUR)) for name, family in FAMILIES.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


@pytest.mark.parametrize("page", ["#FFFFFF", "#14181E"])
def test_families_stand_out_from_a_light_and_a_dark_page(page: str) -> None:
    """By a contrast of 3 to 1, which the Web Content Accessibility Guidelines ask of graphics."""
    for name, family in FAMILIES.items():
        dark, light = sorted((TO_XYZ @ linear(colour))[1] for colour in (family.COLOUR, page))
        assert (light + 0.05) / (dark + 0.05) >= 3, name


def test_the_theme_has_each_colour_once() -> None:
    colours = theme()["config"]["range"]["category"]
    assert (
        len(colours) == len(set(colours)) == len({family.COLOUR for family in FAMILIES.values()} | {*FURTHER_COLOURS})
    )


def test_seeds_are_those_of_the_cell_itself() -> None:
    """Of two studies with one cell, each shows the seeds at the rate that its own dev chose."""
    one = table(("cp", "cp", 4, 400, 1e-3, 0, 0.9, 0.8), ("cp", "cp", 4, 400, 4e-3, 0, 0.6, 0.5), study="one")
    two = table(("cp", "cp", 4, 400, 1e-3, 0, 0.6, 0.4), ("cp", "cp", 4, 400, 4e-3, 0, 0.9, 0.7), study="two")
    spec = as_dict(frontier_chart(pd.concat([one, two], ignore_index=True)))
    assert [row["accuracy"] for row in drawn(spec, layers(spec, "point", size=35)[0])] == [0.8, 0.7]


def test_runs_that_diverged_leave_a_chart_whole() -> None:
    rows = table(*ROWS, ("cp", "cp", 9, 900, 1e-3, 0, None, None))
    spec = as_dict(frontier_chart(rows))
    assert [row["accuracy"] for row in drawn(spec, parts(spec)[1]) if row["size"] == 9] == [None]


def test_a_recovery_is_a_map_of_teachers_by_students_in_the_order_of_their_budgets() -> None:
    spec = as_dict(recovery_chart(RECOVERY))
    fields, means, ranges = spec["layer"]
    assert [layer["mark"]["type"] for layer in (fields, means, ranges)] == ["rect", "text", "text"]
    assert fields["encoding"]["x"]["sort"] == ["LoRA 1", "CP 4"]
    assert fields["encoding"]["y"]["sort"] == ["CP 1, 5,220", "LoRA 1, 57,600"]
    said = {(row["teacher"], row["cell"]): (row["percent"], row["range"], row["shade"]) for row in drawn(spec, spec)}
    assert said == {
        ("LoRA 1", "CP 1"): ("-10", "-30 to 10", 0),
        ("LoRA 1", "LoRA 1"): ("98", "96 to 100", 0.98),
        ("CP 4", "CP 1"): ("25", "20 to 30", 0.25),
        ("CP 4", "LoRA 1"): ("50", "", 0.5),
    }
    assert (means["encoding"]["text"]["field"], ranges["encoding"]["text"]["field"]) == ("percent", "range")
    # On a phone there is no room for intervals, and names stand upright.
    assert ranges["mark"]["opacity"] == {"expr": "width < 92 ? 0 : 1"}
    assert fields["encoding"]["x"]["axis"]["labelAngle"] == {"expr": "width < 92 ? -90 : 0"}
    assert spec["description"].startswith(
        "The share of the divergence from teachers (LoRA 1, CP 4) that students (CP 1, 5"
    )


def test_curves_are_a_line_a_run() -> None:
    spec = as_dict(curve_chart(EVALUATIONS))
    assert spec["mark"]["type"] == "line"
    assert spec["encoding"]["detail"]["field"] == "id"
    assert signals(spec)["family"]["bind"] == "legend"
    assert spec["encoding"]["color"]["scale"]["domain"] == ["head only", "CP"]
    assert [(row["id"], row["step"], row["dev_accuracy"]) for row in drawn(spec, spec)] == [
        ("a", 10, 0.6), ("a", 20, 0.7), ("b", 10, 0.6), ("b", 20, 0.7),
    ]  # fmt: skip


def test_intervals_are_in_points_by_difference_and_group() -> None:
    spec = as_dict(interval_chart(CONTRASTS, "LoRA − CP, points", margin=0.02))
    (points,) = layers(spec, "point")
    rows = drawn(spec, points)
    assert [(row["group"], row["what"]) for row in rows] == list(
        zip(CONTRASTS["group"], CONTRASTS["what"], strict=True)
    )
    assert points["encoding"]["yOffset"]["field"] == "group"
    assert points["encoding"]["color"]["scale"]["domain"] == ["SST-2", "RTE"]
    given = as_dict(interval_chart(CONTRASTS, "LoRA − CP, points", margin=0.02, colours=("#123456", "#abcdef", "red")))
    for layer in (*layers(given, "point"), *layers(given, "rule")[2:]):
        assert layer["encoding"]["color"]["scale"]["range"] == ["#123456", "#abcdef"]
    assert {(row["low"], row["mean"], row["high"]) for row in rows} == {(-1.0, 1.0, 3.0)}
    lines = [drawn(spec, layer) for layer in layers(spec, "rule") if "y" not in layer["encoding"]]
    assert lines == [[{"at": 0.0}], [{"at": -2.0}, {"at": 2.0}]]


def test_a_chart_of_intervals_says_their_level() -> None:
    for made, rows in ((interval_chart, {"margin": 0.02}), (gain_chart, {})):
        data = CONTRASTS if made is interval_chart else GAINS
        for further, level in (({}, "95 %"), ({"level": 1 - 0.0294}, "97 %")):
            spec = as_dict(made(data, "points", **rows, **further))
            assert f"{level} interval" in spec["description"]
            (points,) = layers(spec, "point")
            assert f"{level} from" in {field.get("title") for field in points["encoding"]["tooltip"]}


def test_each_rates_line_has_its_cells_name_apart_from_the_others() -> None:
    close = RESPONSE.assign(mean=[0.6, 0.70, 0.6, 0.701, 0.6, 0.8])
    spec = as_dict(rate_chart(close, floor=0.6))
    named = [row for layer in layers(spec, "text") for row in drawn(spec, layer) if "place" in row]
    assert [row["cell"] for row in named] == ["LoRA 10", "CP 1", "CP 10"]
    places = [row["place"] for row in named]
    assert places == pytest.approx([0.70, 0.70 + 13 * 0.2 / 300, 0.8]), "13 of 300 pixels, which are 20 points"


def test_numbers_of_a_difference_have_signs_and_zero_has_none() -> None:
    svg = vl_convert.vegalite_to_svg(as_dict(interval_chart(CONTRASTS, "LoRA − CP, points", margin=0.02)))
    labels = re.findall(r">([+−-]?[\d.]+)</text>", svg)
    assert "0" in labels
    assert {label[0] for label in labels if label != "0"} == {"+", "−"}


def test_gains_are_dots_in_points_the_smaller_of_a_family_hollow() -> None:
    spec = as_dict(gain_chart(GAINS, "points over the head alone"))
    (dots,) = layers(spec, "point")
    assert {(row["what"], row["cell"]): row["mean"] for row in drawn(spec, dots)} == {
        (what, cell): pytest.approx(1 + k)
        for what in ("SST-2", "RTE")
        for k, cell in enumerate(("CP 1", "CP 17", "LoRA 1"))
    }
    assert dots["encoding"]["stroke"]["scale"]["domain"] == ["CP 1", "LoRA 1", "CP 17"]
    assert dots["encoding"]["stroke"]["scale"]["range"] == [cp.COLOUR, lora.COLOUR, cp.COLOUR]
    assert dots["encoding"]["fill"]["scale"]["range"] == ["transparent", lora.COLOUR, cp.COLOUR]


def test_gains_by_budget_are_lines_of_families_on_a_logarithmic_axis() -> None:
    spec = as_dict(budget_chart(BY_BUDGET, "points over the head alone"))
    (line,) = layers(spec, "line")
    assert line["encoding"]["x"]["scale"]["type"] == "log"
    assert {(row["cell"], row["parameters"], row["mean"]) for row in drawn(spec, spec)} == {
        ("LoRA 1", 9216, 2), ("LoRA 2", 18432, 2), ("CP 1", 972, 2), ("LoKr 1", 960, 2)
    }  # fmt: skip
    assert line["encoding"]["color"]["scale"]["domain"] == ["LoRA", "CP", "LoKr"]


def test_a_spread_draws_every_run_and_their_mean() -> None:
    spec = as_dict(spread_chart(RUNS))
    _, means = spec["layer"]
    assert means["encoding"]["x"]["aggregate"] == "mean"
    rows = drawn(spec, spec)
    assert len(rows) == len(RUNS)
    assert {row["cell"] for row in rows} == {"head only", "CP 11"}


def test_each_cause_has_a_bar_a_task_in_points() -> None:
    spec = as_dict(part_chart(PARTS))
    (bars,) = layers(spec, "bar")
    assert bars["encoding"]["color"]["scale"]["domain"] == ["SST-2", "RTE"]
    assert [(row["part"], row["name"], row["points"]) for row in drawn(spec, spec)] == [
        ("weights with order", "SST-2", pytest.approx(0.3)), ("weights with order", "RTE", pytest.approx(0.6)),
        ("initial weights", "SST-2", 0), ("initial weights", "RTE", 0),
    ]  # fmt: skip


def test_the_smallest_effects_are_lines_in_points_named_at_their_ends() -> None:
    spec = as_dict(smallest_effect_chart(EFFECTS, wanted=0.005))
    (lines,) = layers(spec, "line")
    assert [(row["name"], row["seeds"], row["points"]) for row in drawn(spec, lines)][:2] == [
        ("RTE", 3, pytest.approx(20 / 3)), ("RTE", 10, pytest.approx(2)),
    ]  # fmt: skip
    named, wanted = ([drawn(spec, layer) for layer in layers(spec, "text", align=side)] for side in ("right", "left"))
    assert [(row["name"], row["seeds"]) for row in named[0]] == [("RTE", 100), ("mine", 100)]
    assert wanted == [[{"points": 0.5, "said": "0.5 points"}]]
