"""Families on one axis: what was written down of them, and the tests by hand, from the records' own lines."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev

import pytest
from by_hand import best_on_dev, by_draw, corrected, over_sources, read
from scipy import stats

from companion import families, main_study, model_size, quantities
from cpadapt.analysis.across_tasks import difference
from cpadapt.analysis.charts import family_colours, family_name
from cpadapt.records.config import Cell

pytestmark = pytest.mark.slow  # the book's numbers, which whoever asks first computes

ASKED_FILES = sorted((Path(__file__).parents[2] / "studies").glob("families-*.toml"))
ASKED = (Path(__file__).parents[2] / "studies" / "families.md").read_text(encoding="utf-8")
MODELS = pytest.mark.parametrize("model", families.STUDIES)
WEIGHTS = {
    "minilm": {
        "cp": {("cp", 9): 1, ("cp", 18): 1, ("cp", 37): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1},
        "melora": {
            ("melora", 8): 1, ("melora", 16): 1, ("melora", 32): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "symlora": {
            ("symlora", 2): 1, ("symlora", 4): 1, ("symlora", 8): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "smallest": {("cp", 1): 3, ("lokr", 1): -3},
    },
    "smollm2": {
        "cp": {("cp", 11): 1, ("cp", 22): 1, ("cp", 44): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1},
        "melora": {
            ("melora", 8): 1, ("melora", 16): 1, ("melora", 32): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "smallest": {("cp", 1): 3, ("lokr", 1): -3},
    },
}  # fmt: skip
"""Three times a test's weights of cells."""


def test_partners_are_those_that_were_written_down() -> None:
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) − LoRA \| (.+?) \| (.+?) \| (.*?) ?\|$", ASKED, re.M)}
    said = {label: [[int(n) for n in re.findall(r"\d+", cell.split(" −")[0])] for cell in rows[family_name(label)][1:]]
            for label in ("cp", "melora", "symlora")}  # fmt: skip
    assert said["symlora"] == [[2, 4, 8], []]
    assert "same" in rows["MELoRA"][2]
    assert {label: list(sizes) for label, sizes in families.PARTNERS["minilm"].items()} == {
        label: models[0] for label, models in said.items()
    }
    assert list(families.PARTNERS["smollm2"]["cp"]) == said["cp"][1]
    assert families.PARTNERS["smollm2"]["melora"] == families.PARTNERS["minilm"]["melora"]


@MODELS
def test_partners_cost_nearly_the_same(model: str) -> None:
    counts = families.cells(model)
    for label, sizes in families.PARTNERS[model].items():
        for size, rank in zip(sizes, families.RANKS, strict=True):
            assert counts[label, size] == pytest.approx(counts["lora", rank], rel=0.06)
    assert counts["cp", 1] == pytest.approx(counts["lokr", 1], rel=0.02)


@MODELS
def test_leads_and_verdicts(model: str) -> None:
    study = families.STUDIES[model]
    runs, two_sided, one_sided = main_study.runs(study), [], []
    for test, weights in WEIGHTS[model].items():
        found = by_draw(study, lambda _, weights=weights: weights)
        assert len(found) == 6
        assert {len(draws) for draws in found.values()} == {10}
        errors = {
            task: difference([(w, cells[cell].values()) for cell, w in weights.items()]).estimate.standard_error
            for task, cells in runs.items()
        }
        mean = over_sources(found, errors)
        assert mean.degrees == 4
        reach = stats.t.ppf(0.975, 4) * mean.error
        lead = quantities.value(f"families.lead.{test}.{model}")
        assert (lead.value, lead.low, lead.high) == pytest.approx(
            [100 / 3 * value for value in (mean.mean, mean.mean - reach, mean.mean + reach)], rel=2e-3, abs=1e-4
        )
        two_sided.append(2 * stats.t.sf(abs(mean.mean) / mean.error, 4))
        one_sided.append(stats.t.sf((0.015 - abs(mean.mean)) / mean.error, 4))
    for test, p, e in zip(WEIGHTS[model], corrected(two_sided), corrected(one_sided), strict=True):
        assert quantities.value(f"families.p_value.{test}.{model}").value == pytest.approx(p, rel=0.01, abs=1e-3)
        said = "shown" if p < 0.05 else "equivalent" if e < 0.05 else "open"
        assert quantities.value(f"families.verdict.{test}.{model}").value == said


@MODELS
def test_single_tasks(model: str) -> None:
    """Means over draws by hand, with intervals that the draws alone would make no wider."""
    study = families.STUDIES[model]
    for test, weights in WEIGHTS[model].items():
        apart = 0
        for task, draws in by_draw(study, lambda _, weights=weights: weights).items():
            found = quantities.value(f"families.on_task.{test}.{model}.{task}")
            each = [100 / 3 * value for value in draws.values()]
            assert found.value == pytest.approx(fmean(each), rel=1e-3, abs=1e-6)
            assert found.low is not None
            assert found.high is not None
            assert found.high - found.value == pytest.approx(found.value - found.low)
            # The items that draws share can only add to the error of the draws.
            assert found.high - found.value > 1.95 * stdev(each) / 10**0.5
            apart += found.low > 0 or found.high < 0
        assert printed_count(f"families.apart.{test}.{model}") == (apart, 6)
    table = families.task_table()
    title = model_size.title(study)
    assert set(table[table["model"] == title]["task"]) == {"SST-2", "MRPC", "SICK", "AG News", "SST-5", "TREC"}
    assert (table[table["model"] == title]["SymLoRA − LoRA"] == "–").all() == (model == "smollm2")


def printed_count(name: str) -> tuple[float | str, int | None]:
    found = quantities.value(name)
    return found.value, found.n


@MODELS
def test_charts_and_tables_have_every_adapter(model: str) -> None:
    cells = {(label, size) for label, sizes in families.study(model).ladder.sizes.items() for size in sizes}
    assert len(families.lead_rows()) == sum(len(families.tests(each)) for each in families.STUDIES)
    assert len(families.cell_table(model)) == len(cells)
    assert len(families.test_table()) == len(families.lead_rows())
    smallest = families.smallest_table()
    assert len(smallest) == sum(len(families.study(each).ladder.sizes) for each in families.STUDIES)


def over_tasks(study: str, weights: Callable[[str], Mapping[Cell, float]]) -> list[float]:
    """A weighted sum of cells over tasks and the ends of its interval, in points, with the library's error of each
    task alone."""
    runs, found = main_study.runs(study), by_draw(study, weights)
    errors = {
        task: difference([(w, runs[task][cell].values()) for cell, w in weights(task).items()]).estimate.standard_error
        for task in found
    }
    mean = over_sources(found, errors)
    reach = stats.t.ppf(0.975, mean.degrees) * mean.error
    return [100 * value for value in (mean.mean, mean.mean - reach, mean.mean + reach)]


def printed(name: str) -> list[float]:
    found = quantities.value(name)
    return [found.value, found.low, found.high]


@MODELS
def test_gains_shares_and_what_the_smallest_lack(model: str) -> None:
    study, head, first = families.STUDIES[model], ("head", 0), ("lora", 1)
    best = best_on_dev(study)
    best_gain = over_tasks(study, lambda task: {best[task]: 1, head: -1})
    smallest = {"cp": 1, "lokr": 1, "lora": 1, "melora": 8} | ({"symlora": 1} if model == "minilm" else {})
    for cell in smallest.items():
        name = f"{{}}.{cell[0]}{{}}.{model}"
        gain = over_tasks(study, lambda _, cell=cell: {cell: 1, head: -1})
        assert printed(name.format("families.gain", cell[1])) == pytest.approx(gain, rel=2e-3, abs=1e-3)
        share = quantities.value(name.format("families.share", ""))
        assert share.value == pytest.approx(100 * gain[0] / best_gain[0], rel=1e-3)
        # Every share is possible where the best adapter's gain may be zero.
        assert (share.low is None) == (best_gain[1] < 0)
        if cell != first:
            lacks = over_tasks(study, lambda _, cell=cell: {cell: 1, first: -1})
            assert printed(name.format("families.behind", "")) == pytest.approx(lacks, rel=2e-3, abs=1e-3)
    largest = over_tasks(study, lambda _: {("lora", 4): 1, head: -1})
    assert printed(f"families.gain.lora4.{model}") == pytest.approx(largest, rel=2e-3, abs=1e-3)


@MODELS
def test_counts_by_hand(model: str) -> None:
    """Of 12 square projections of 384 = 16·24, or of 30 each of 576×576 and 192×576: 576 = 24² and 192 = 12·16."""
    counts = {
        "minilm": {"lora": 12 * 768, "cp": 12 * 81, "melora": 12 * 768, "symlora": 12 * 385, "lokr": 12 * 80},
        "smollm2": {"lora": 30 * (1152 + 768), "cp": 30 * (97 + 77), "melora": 57600, "lokr": 30 * (96 + 76)},
    }[model]
    for label, count in counts.items():
        assert quantities.value(f"families.smallest.{label}.{model}").value == count
        if label in ("cp", "lokr", "symlora"):
            part = quantities.value(f"families.of_rank.{label}.{model}").value
            assert part == pytest.approx(100 * count / counts["lora"])


def test_the_chart_below_the_first_rank_has_what_is_smaller() -> None:
    rows = families.behind_rows()
    assert list(zip(rows["group"], rows["what"], strict=True)) == [
        ("MiniLM-L6", "SymLoRA 1 − LoRA 1"), ("MiniLM-L6", "CP 1 − LoRA 1"), ("SmolLM2-135M", "CP 1 − LoRA 1"),
        ("MiniLM-L6", "LoKr 1 − LoRA 1"), ("SmolLM2-135M", "LoKr 1 − LoRA 1"),
    ]  # fmt: skip
    names = ("symlora.minilm", "cp.minilm", "cp.smollm2", "lokr.minilm", "lokr.smollm2")
    drawn = rows[["mean", "low", "high"]].to_numpy() * 100
    for name, values in zip(names, drawn, strict=True):
        assert printed(f"families.behind.{name}") == pytest.approx(list(values))


def test_models_have_colours_that_no_family_has() -> None:
    assert len(families.COLOURS) == len(families.STUDIES)
    assert not set(families.COLOURS) & set(family_colours().values())


def test_what_families_are_saved_as() -> None:
    table = families.kept_table().set_index("adapter")
    assert list(table.index) == ["LoRA 1", "CP 1", "CP 9", "MELoRA 8", "SymLoRA 1", "SymLoRA 2", "LoKr 1", "LoKr 7"]
    assert list(table["rank as plain LoRA"]) == ["1", "1", "9", "8", "1", "2", "1", "49"]
    # Of 9,216 scalars a rank; the next of MELoRA's ranks is in one of eight minis.
    assert table["file, bytes"]["MELoRA 8"] == f"{4 * 8 * 9216:,}"
    assert table["file, bytes"]["LoRA 1"] == table["file, bytes"]["SymLoRA 1"] == f"{4 * 9216:,}"
    assert table["file, bytes"]["CP 9"] == f"{4 * 9 * 972:,}"
    assert table["file, bytes"]["LoKr 7"] == f"{4 * 7 * 960:,}"
    assert table["next step"]["MELoRA 8"] == f"{9216 // 8:,}"


def test_choices_that_fell_on_the_edge() -> None:
    lowest, highest, choices = [], [], 0
    for model in families.STUDIES:
        on_dev: dict[Cell, dict[tuple[float, float], dict[str, list[float]]]] = {}
        for line in read(f"families-rates-{model}"):
            config = line["config"]
            assert line["diverged_at"] is None
            setting = config["learning_rate"], config["scale"]
            by_task = on_dev.setdefault((line["label"], config["size"]), {}).setdefault(setting, {})
            right = max(found["dev_correct"] / found["dev_total"] for found in line["evaluations"])
            by_task.setdefault(config["task"], []).append(right)
        for (label, size), settings in sorted(on_dev.items()):
            assert {tuple(map(len, by_task.values())) for by_task in settings.values()} == {(3,) * 6}
            rate, _ = max(settings, key=lambda one: fmean(map(fmean, settings[one].values())))
            choices += 1
            named = f"{family_name(label)} {size} {model}"
            lowest += [named] * (rate == 6e-4)
            highest += [named] * (rate == 2e-2)
    assert quantities.value("families.choices").value == choices == 21
    assert quantities.value("families.which_lowest").value == lowest[0]
    assert len(lowest) == 1
    assert quantities.value("families.at_highest").value == len(highest)
    assert all(name in str(quantities.value("families.which_highest").value) for name in highest)


def test_how_much_was_run_and_what_was_not() -> None:
    lines = [line for study in families.STUDIES.values() for line in read(study)]
    assert quantities.value("families.runs").value == len(lines)
    assert {line["config"]["data_seed"] for line in lines} == set(range(311, 321))
    assert quantities.value("families.draws").value == 10
    assert quantities.value("families.compared").value == sum(len(WEIGHTS[model]) - 1 for model in WEIGHTS)
    verdicts = [str(quantities.value(f"families.verdict.{test}.{model}").value) for model in WEIGHTS
                for test in WEIGHTS[model] if test != "smallest"]  # fmt: skip
    assert quantities.value("families.equivalent").value == verdicts.count("equivalent")
    # Sizes times draws times tasks: with the head alone, or of each size eight settings.
    asked = {
        "families-rates-minilm": 12 * 8 * 3 * 6, "families-rates-smollm2": 9 * 8 * 3 * 6,
        "families-rates-smollm2-q": 8 * 8 * 3 * 6, "families-tasks-minilm": 18 * 10 * 6,
        "families-tasks-smollm2": 14 * 10 * 6, "families-tasks-smollm2-q": 13 * 10 * 6,
    }  # fmt: skip
    assert {file.stem for file in ASKED_FILES} == set(asked)
    short = [study for study, count in asked.items() if len(read(study)) < count]
    assert str(quantities.value("families.not_whole").value) == (" and ".join(short) or "none")
    assert quantities.value("families.adapters").value == 17 + 13
