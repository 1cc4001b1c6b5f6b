"""The plan: what it says of itself adds up, its studies are the study files', and what it says of its own estimators
is what is on record of them."""

import json
import re
from pathlib import Path

import plan_coverage
import pytest

from companion import knobs, plan
from cpadapt import load_study
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.factors import terms_of
from cpadapt.families import FAMILIES
from cpadapt.inputs.tasks.specs import TASKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "plan.md").read_text(encoding="utf-8")
COVERAGE = json.loads(plan_coverage.RESULT.read_text(encoding="utf-8"))


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose head begins so, below its head."""
    (table,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_the_page_has_no_result_and_says_when_it_was_written() -> None:
    assert "written before it is run" in PAGE.splitlines()[0]
    assert "glue:" not in PAGE
    assert "## Changes since it was written" in PAGE


def test_tests_are_counted() -> None:
    numbers = [row[0] for row in rows("test")]
    assert numbers == [str(k) for k in range(1, 15)]
    assert PAGE.count("ourteen tests") == 1
    assert "The fourteen secondary p values" in PAGE


def test_tasks_are_those_that_were_simulated() -> None:
    named = [name for row in rows("classes") for name in row[1].split(", ")]
    known = [re.sub(r"\\\*| \(\d\)", "", name).lower() for name in named]
    keys = [name.replace(" ", "").replace("sst-", "sst").replace("sst2", "sst2") for name in known]
    assert sorted(keys) == sorted(plan_coverage.TASKS)
    starred = {key for key, name in zip(keys, named, strict=True) if r"\*" in name}
    assert starred == {name for name, source in plan_coverage.SOURCES.items() if source}
    sources = len(keys) - len(starred) + 1
    assert sources == 12
    assert "leaves twelve sources" in PAGE
    assert "eleven degrees of freedom" in PAGE


def test_tasks_have_the_classes_and_sources_that_their_files_say() -> None:
    classes = {"two": {2}, "three": {3}, "four to six": {4, 5, 6}}
    for said, names in rows("classes"):
        for name in names.split(", "):
            key = re.sub(r"\\\*| \(\d\)|[ -]", "", name).lower()
            if key in TASKS:  # of the tasks that are bundled
                assert len(TASKS[key].labels) in classes[said], key
                group = getattr(TASKS[key], "source_group", plan_coverage.SOURCES[key])
                assert (group is not None) == (r"\*" in name), key


def test_margin_level_and_looks_are_those_of_the_code() -> None:
    assert plan.MARGIN == 0.005
    assert plan.LEVEL == 0.0294
    assert rows("word")[0][1] == "the 97.06 % interval leaves out 0 (a two-sided test at 2.94 %)"
    assert "the 94.12 % interval lies within ±0.5 points (two one-sided tests at 2.94 %)" in rows("word")[1][1]
    assert plan_coverage.DRAWS == (10, 20)
    assert "Ten draws first." in PAGE
    assert "ten more draws are run, 11 to 20" in PAGE
    assert (plan_coverage.EVAL, plan_coverage.REST, plan_coverage.DRAWN) == (2000, 1000, 1500)


def cells(said: str) -> set[str]:
    """The adapters of a row, such as LoRA 1 of `head; LoRA 1, 4; CP 1`."""
    found = {"head only"} if said.startswith("head") else set()
    for family, sizes in re.findall(r"(LoRA|CP) ((?:\d+(?:, )?)+)", said.split("; each")[0]):
        found |= {f"{family} {size}" for size in re.findall(r"\d+", sizes)}
    return found


STUDIES = {name: row for row in rows("study") for name in re.findall(r"`([^`]+)`", row[0])}


@pytest.mark.parametrize("name", [name for name in STUDIES if (ROOT / "studies" / f"{name}.toml").is_file()])
def test_a_study_file_has_the_cells_of_the_plan(name: str) -> None:
    _, _, tasks, adapters, steps, draws = STUDIES[name]
    study = load_study(ROOT / "studies" / f"{name}.toml")
    asked = {cell_name(label, size) for label, sizes in study.ladder.sizes.items() for size in sizes}
    asked |= {"head only"} if study.ladder.head else set()
    if name.startswith("size-rates-"):  # one budget's fewest components take another's setting, and a head has no rate
        assert asked < cells(adapters)
    else:
        assert asked == cells(adapters)
    assert str(study.protocol.steps) == steps
    if re.search(r"SST-2|fifteen", tasks):
        keys = {re.sub(r"[ -]", "", task).lower() for task in tasks.split(", ")}
        assert set(study.tasks) == (set(plan_coverage.TASKS) if "fifteen" in tasks else keys)
    assert draws


@pytest.mark.parametrize("name", ["knobs-smollm2", "knobs-0.5b"])
def test_the_knobs_are_those_of_their_design_and_files(name: str) -> None:
    table = [[float(value) if value else None for value in row[1:]] for row in rows("knob")]
    assert table == [
        [next((value for value, code in factor.levels.items() if code == level), None) for level in (-1, 0, 1)]
        for factor in knobs.FACTORS
    ]
    assert all(row[0].startswith(factor.name) for row, factor in zip(rows("knob"), knobs.FACTORS, strict=True))
    study = load_study(ROOT / "studies" / f"{name}.toml")
    said = " ".join(PAGE.partition("(hidden-knobs)=")[2].split())
    backbone = {"knobs-smollm2": "SmolLM2", "knobs-0.5b": "0.5B"}[name]
    (size,) = study.ladder.sizes["cp"]
    assert re.search(rf"{size} (components have )?on {backbone}", said)
    assert f"draws {study.draws[0]} to {study.draws[-1]}, judged on dev alone" in said
    assert study.protocol.eval_cap == 0
    assert f"{study.protocol.steps} steps" in said
    assert [{"SST-2": "sst2"}.get(task, task.lower()) for task in ("SST-2", "RTE", "TREC")] == list(study.tasks)
    rates = [round(rate / FAMILIES["lora"].LEARNING_RATE) for rate in study.families["lora"].learning_rates or ()]
    assert "at {}, {}, {} and {} times the paper's".format(*rates) in said
    settings = {
        label: len(study.families[label].settings_of("cp", size)) for label in study.families if label != "lora"
    }
    assert (settings["cp"], sum(settings.values())) == (8, 42)
    assert len(terms_of(knobs.FACTORS)) == 24


def test_what_is_said_of_the_estimators_is_on_record() -> None:
    assert f"{COVERAGE['studies']:,} studies" in PAGE
    found = {row[0]: row[1:] for row in rows("τ, points")}
    for cell in COVERAGE["cells"]:
        if cell["draw_sd"] == 0 and cell["shared"] == 1:
            wanted = [f"{cell['half_width']:.2f}"]
            wanted += [
                f"{cell[name]:.1f} ({cell['rule_' + name]:.1f})"
                for name in ("shown_at_0", "shown_at_0.8", "equivalent_at_0", "equivalent_at_the_margin")
            ]
            wanted.insert(1, f"{cell['covered']:.1f} ({cell['rule_covered_at_0']:.1f})")
            assert found.pop(f"{100 * cell['spread']:.1f}") == wanted
    assert not found
    said = " ".join(PAGE.split())
    covered, of_tasks = [cell["covered"] for cell in COVERAGE["cells"]], COVERAGE["of_tasks"].values()
    looked = [cell for cell in COVERAGE["cells"] if "rule_shown_at_0" in cell]
    for sentence in (
        f"the 95 % interval held the truth in {min(covered):.1f} to {max(covered):.1f} % of studies",
        f"Each task's own interval held it in {min(of_tasks):.1f} to {max(of_tasks):.1f} %",
        f"would err in up to {max(cell['uncorrected_rule_shown_at_0'] for cell in looked):.1f} % of studies",
        f"At 2.94 % each they err in up to {max(cell['rule_shown_at_0'] for cell in looked):.1f} %",
    ):
        assert sentence in said
