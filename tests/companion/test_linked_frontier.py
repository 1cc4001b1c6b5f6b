"""The linked frontier has the records' numbers, the same as the pages' tables, and shows them by pointer and keys."""

import json
import re
from collections.abc import Iterator
from functools import cache
from statistics import fmean
from typing import Any

import in_browser
import pytest
from by_hand import answers, bits, classes, judged, read
from playwright.sync_api import Page

from companion import PROJECT, encoder, linked_frontier, main_study, model_size, noise, one_task, quantities, size
from companion.wording import bounds, percent, signed
from cpadapt.analysis.charts import cell_name
from cpadapt.records.config import HEAD

pytestmark = pytest.mark.slow


@cache
def form() -> str:
    return linked_frontier.form()


@cache
def data() -> dict[str, Any]:
    """What the page embeds."""
    found: dict[str, Any] = json.loads(re.search(r"<script type=\"application/json\">(.*)</script>", form())[1])
    return found


def view(task: str, rates: str, model: str = "qwen-1.5b") -> dict[str, Any]:
    (found,) = (
        each
        for each in data()["views"]
        if (each["model"], each["task"]) == (model, task) and each["rates"].startswith(rates)
    )
    return found


def cell(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (each for each in found["cells"] if each["name"] == name)
    return one


def right(line: dict[str, Any]) -> int:
    """How many items of eval and rest a run has right, as its record's file has them."""
    return sum(answers(line["outcome"])) + (sum(answers(line["rest"])) if line["rest"] else 0)


def shown(three: list[float]) -> str:
    """A mean and its interval as the figure prints them."""
    return f"{signed(three[0] / 100)}, {bounds(end / 100 for end in three[1:])}"


@pytest.mark.long
def test_every_study_over_tasks_has_a_view_of_each_task() -> None:
    found = {(each.study, each.task) for each in linked_frontier.views()}
    for study in model_size.STUDIES.values():
        assert found >= {(study, task) for task in main_study.runs(study)}
    (first, *_) = (each for each in data()["views"] if (each["model"], each["task"]) == linked_frontier.FIRST)
    assert first["rates"].startswith(linked_frontier.CHOSEN_FOR_ALL)
    assert len({(each["model"], each["task"], each["rates"]) for each in data()["views"]}) == len(data()["views"])


@pytest.mark.parametrize("study", model_size.STUDIES.values())
@pytest.mark.long
def test_runs_over_draws_are_those_of_the_records(study: str) -> None:
    lines = [line for line in read(study) if line["config"]["task"] == "rte"]
    found = view("rte", linked_frontier.CHOSEN_FOR_ALL, lines[0]["config"]["backbone"])
    asked = {line["config"]["data_seed"]: line["outcome"]["total"] + line["rest"]["total"] for line in lines}
    assert dict(zip(found["runs"], found["items"], strict=True)) == asked
    for one in found["cells"]:
        runs = {
            line["config"]["data_seed"]: line
            for line in lines
            if cell_name(line["label"], line["config"]["size"]) == one["name"]
        }
        assert dict(zip(found["runs"], one["right"], strict=True)) == {draw: right(runs[draw]) for draw in runs}
        assert one["curves"] == [
            [evaluation["dev_correct"] for evaluation in runs[draw]["evaluations"]] for draw in found["runs"]
        ]
        assert one["scalars"] == runs[1]["counts"]["adapter"]
        # The mean of the draws' accuracies, and of their differences from the head alone.
        head = found["cells"][0]
        shares = [100 * k / items for k, items in zip(one["right"], found["items"], strict=True)]
        floors = [100 * k / items for k, items in zip(head["right"], found["items"], strict=True)]
        assert one["accuracy"][0] == pytest.approx(fmean(shares), abs=1e-4)
        if one is not head:
            assert one["gain"][0] == pytest.approx(fmean(shares) - fmean(floors), abs=2e-4)


def test_over_draws_it_says_what_the_pages_say() -> None:
    for study in model_size.STUDIES.values():
        model = next(each.backbone for each in linked_frontier.views() if each.study == study)
        for task in main_study.runs(study):
            found = view(task, linked_frontier.CHOSEN_FOR_ALL, model)
            for one in found["cells"][1:]:
                name = (one["family"], int(one["name"].split()[-1]))
                gain = main_study.gains(name, study)[task].estimate
                exact = [100 * share for share in (gain.mean, *gain.interval())]
                assert one["gain"] == pytest.approx(exact, abs=1e-4)  # printed, a tie may round either way
    # The chart of gains on the first page draws these.
    rows = main_study.gain_rows().set_index(["what", "label", "size"])
    for task, name in (("mnli", "CP 17"), ("trec", "LoRA 1")):
        one = cell(view(task, linked_frontier.CHOSEN_FOR_ALL), name)
        row = rows.loc[(data()["tasks"][task], one["family"], int(name.split()[1]))]
        assert one["gain"][0] == pytest.approx(100 * row["mean"], abs=1e-4)
        # There at the plan's level, here at the usual one.
        assert row["low"] < one["gain"][1] / 100 < one["gain"][2] / 100 < row["high"]


@pytest.mark.parametrize("task", size.TASKS_MEASURED)
def test_in_the_papers_design_it_says_what_the_tables_say(task: str) -> None:
    found = view(task, linked_frontier.PAPER)
    means = {cell_name(row.label, row.size): row for row in one_task.accuracies(size.cells(task)).itertuples()}
    assert {one["name"] for one in found["cells"]} == set(means)
    for one in found["cells"]:
        assert one["accuracy"][0] == pytest.approx(100 * means[one["name"]].mean, abs=1e-4)
        assert one["scalars"] == means[one["name"]].parameters
    for row in one_task.differences(size.cells(task)).itertuples():
        one = cell(found, f"LoRA {row.rank}")
        assert one["pair"] == f"LoRA {row.rank} − CP {row.components}"
        # That table has CP minus LoRA.
        assert one["lead"] == pytest.approx([-100 * end for end in (row.mean, row.high, row.low)], abs=1e-4)


def test_over_seeds_by_hand() -> None:
    lora, cp, head = (
        {
            line["config"]["seed"]: answers(line["outcome"])
            for line in read("size-paper")
            if (line["config"]["task"], line["label"], line["config"]["size"]) == ("rte", label, number)
        }
        for label, number in (("lora", 1), ("cp", 17), (HEAD, 0))
    )

    def minus(one: dict[int, list[int]], other: dict[int, list[int]]) -> list[float]:
        found = judged([[a - b for a, b in zip(one[seed], other[seed], strict=True)] for seed in sorted(one)])
        return [found["gap"], *found["interval"]]

    one = cell(view("rte", linked_frontier.PAPER), "CP 17")
    assert one["pair"] == "LoRA 1 − CP 17"
    assert one["lead"] == pytest.approx(minus(lora, cp), abs=1e-4)
    assert one["gain"] == pytest.approx(minus(cp, head), abs=1e-4)


@pytest.mark.parametrize("task", noise.TASKS)
def test_over_many_seeds_it_says_what_the_quantities_say(task: str) -> None:
    one = cell(view(task, "10 times the paper's: 2,000 steps", "smollm2"), "CP 11")
    assert one["pair"] == "LoRA 1 − CP 11"
    known = quantities.value(f"noise.over_seeds.{task}.lora1_cp11")
    assert one["lead"] == pytest.approx([known.value, known.low, known.high], abs=1e-4)
    assert len(one["right"]) == known.n


def test_the_encoder_has_its_cells() -> None:
    for task, known in encoder.cells().items():
        found = view(task, "20 times the paper's", "minilm")
        for name, outcomes in known.outcomes.items():
            one = cell(found, cell_name(*name))
            assert one["right"] == outcomes.right.sum(1).astype(int).tolist()
            assert one["scalars"] == known.budgets[name]


def test_a_partner_is_the_nearest_in_size() -> None:
    found = view("sst2", linked_frontier.PAPER)
    # A component has 7,672 scalars and a rank 136,192: 26 components are nearer to two ranks, by ratio.
    for name, partner in (("CP 1", "LoRA 1"), ("CP 12", "LoRA 1"), ("CP 26", "LoRA 2"), ("CP 142", "LoRA 8")):
        assert found["cells"][cell(found, name)["partner"]]["name"] == partner
    for name, partner in (("LoRA 1", "CP 17"), ("LoRA 4", "CP 71"), ("LoRA 6", "CP 106")):
        assert found["cells"][cell(found, name)["partner"]]["name"] == partner
    assert "partner" not in cell(found, cell_name(HEAD, 0))


def test_the_commonest_answer_by_hand() -> None:
    shares = []
    for line in read("size-tasks"):
        if (line["config"]["task"], line["label"]) == ("trec", HEAD):
            asked = [*classes(line["outcome"]), *classes(line["rest"])]
            assert len(asked) == sum(bits(line["outcome"]["drawn"], line["outcome"]["rows"])) + line["rest"]["total"]
            shares.append(max(map(asked.count, set(asked))) / len(asked))
    assert len(shares) == 10
    assert view("trec", linked_frontier.CHOSEN_FOR_ALL)["commonest"] == pytest.approx(100 * fmean(shares), abs=1e-4)


def test_rates_on_dev_are_those_that_the_choice_averaged() -> None:
    tried = {
        each["task"]: cell(each, "CP 1")["tried"]
        for each in data()["views"]
        if each["model"] == "qwen-1.5b" and "tried" in cell(each, "CP 1")
    }
    assert sorted(tried) == ["mrpc", "qnli", "rte", "sst2", "sst5", "trec"]
    for key, name in size.SETTINGS.items():
        over_tasks = fmean(accuracy for rows in tried.values() for said, accuracy, _ in rows if said == name)
        assert over_tasks == pytest.approx(quantities.value(f"size.on_dev.qwen15.cp1.{key}").value, abs=1e-4)
    chosen = {name for rows in tried.values() for name, _, is_chosen in rows if is_chosen}
    assert chosen == {quantities.value("size.chosen.qwen15.cp1").value}
    assert "tried" not in cell(view("trec", linked_frontier.CHOSEN_FOR_ALL), "CP 4")


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    with in_browser.opened() as browser:
        page = browser.new_page(offline=True, viewport={"width": 390, "height": 844})
        in_browser.listen(page)
        page.set_content(f'<article class="bd-article" style="width: 342px">{form()}</article>')
        page.add_style_tag(path=PROJECT / "book" / "assets" / "book.css")
        page.add_script_tag(path=PROJECT / "book" / "assets" / "linked_frontier.js")
        yield page


def tab(page: Page, name: str) -> Any:
    return page.get_by_role("tab", name=name, exact=True)


@pytest.mark.browser
def test_unmoved_it_says_its_point(opened: Page) -> None:
    assert opened.get_by_role("tab", selected=True).all_inner_texts() == ["Qwen2.5-Coder-1.5B", "TREC"]
    one = cell(view("trec", linked_frontier.CHOSEN_FOR_ALL), "CP 1")
    said = opened.locator(".linked-frontier-said")
    assert said.get_attribute("aria-live") == "polite"
    assert f"{signed(one['gain'][0] / 100)} points over the head alone" in said.inner_text()
    assert opened.get_by_role("button", pressed=True).get_attribute("data-member") == "CP 1"
    assert "head only" in opened.locator("svg").first.text_content()
    assert "commonest answer, 23.5" in opened.locator("svg").first.text_content()


@pytest.mark.browser
def test_tabs_and_cells_by_keyboard(opened: Page) -> None:
    """The figure's numbers are those of the printed table, at a cell of the paper's design."""
    tab(opened, "TREC").focus()
    opened.keyboard.press("Home")
    assert tab(opened, "BoolQ").get_attribute("aria-selected") == "true"
    assert tab(opened, "BoolQ").evaluate("tab => tab === document.activeElement")
    opened.keyboard.press("ArrowLeft")
    assert tab(opened, "TREC").get_attribute("aria-selected") == "true"
    opened.keyboard.press("ArrowRight")
    rates = view("boolq", linked_frontier.PAPER)["rates"]
    opened.locator("select[name=rates]").select_option(rates)
    opened.locator("[data-member='CP 1'][role=button]").focus()
    for _ in range(30):
        if opened.evaluate("document.activeElement.dataset.member") == "CP 71":
            break
        opened.keyboard.press("ArrowRight")
    opened.keyboard.press("Enter")
    assert opened.get_by_role("button", pressed=True).get_attribute("data-member") == "CP 71"

    (row,) = one_task.differences(size.cells("boolq")).query("components == 71").itertuples()
    interval = bounds((-row.high, -row.low))
    assert row.rank == 4
    said = opened.locator(".linked-frontier-said").inner_text()
    assert f"LoRA 4 − CP 71 is {signed(-row.mean)} points ({interval})" in said
    (mean,) = one_task.accuracies(size.cells("boolq")).query("label == 'cp' and size == 71")["mean"]
    assert f"Accuracy {percent(mean)}\u202f%" in said

    lines = {
        (line["label"], line["config"]["size"], line["config"]["seed"]): line
        for line in read("size-paper")
        if line["config"]["task"] == "boolq"
    }
    shown_rows = [row.inner_text().split() for row in opened.locator(".linked-frontier-details tbody tr").all()]
    assert shown_rows == [
        [
            str(seed),
            percent((cp := right(lines["cp", 71, seed])) / 1000),
            percent((lora := right(lines["lora", 4, seed])) / 1000),
            signed((lora - cp) / 1000),
        ]
        for seed in (0, 1, 2)
    ]
    # An old choice of rates is kept only where there is one of its name.
    tab(opened, "Qwen2.5-Coder-1.5B").focus()
    opened.keyboard.press("End")
    assert tab(opened, "MiniLM-L6").get_attribute("aria-selected") == "true"
    assert tab(opened, "BoolQ").get_attribute("aria-selected") == "true"
    assert opened.get_by_role("tab", name="TREC").count() == 0
    assert opened.complaints == []


@pytest.mark.browser
def test_on_a_phone_every_view_fits_and_shows_each_run(opened: Page) -> None:
    """All views, with the runs' points, in accuracy and in points; and a cell that opens by touch."""
    opened.locator("input[name=runs]").check()
    wide = opened.evaluate(
        """() => {
          const found = [], root = document.querySelector(".linked-frontier");
          const visible = () => [...root.querySelectorAll("[role=tab]")].filter((tab) => !tab.hidden);
          for (const model of [...root.querySelector("[role=tablist]").children]) {
            model.click();
            for (const task of visible().filter((tab) => tab.parentElement !== model.parentElement)) {
              task.click();
              for (const rates of [...root.querySelectorAll("[name=rates] option")].map((option) => option.value)) {
                for (const shown of ["accuracy", "gain"]) {
                  for (const [name, value] of [["rates", rates], ["shown", shown]]) {
                    const select = root.querySelector(`[name=${name}]`);
                    select.value = value;
                    select.dispatchEvent(new Event("input"));
                  }
                  const cells = [...root.querySelectorAll(".linked-frontier-cell")];
                  const over = Math.max(document.documentElement.scrollWidth - 390, 0);
                  const marks = cells.filter((cell) => !cell.querySelector(".head"));
                  const runs = new Set(marks.map((cell) => cell.querySelectorAll(".run").length));
                  // No name lies on the axis.
                  const said = [...root.querySelectorAll("#linked-frontier-chart text")];
                  const name = said.find((text) => text.textContent.includes("commonest answer"));
                  const { y, height } = name.getBBox();
                  const struck = y < 224 && y + height > 225;
                  const odd = /NaN|undefined|Infinity/.test(root.innerHTML.replace(/<script[^]*/, ""));
                  if (over || odd || struck || runs.size !== 1) {
                    found.push([model.textContent, task.textContent, rates, shown, over, odd, struck, [...runs]]);
                  }
                }
              }
            }
          }
          return found;
        }"""
    )
    assert wide == []
    tab(opened, "SmolLM2-135M").click()
    tab(opened, "SST-2").click()
    opened.locator("[data-member='LoRA 1'][role=button] .dot").click(force=True)
    assert opened.locator(".linked-frontier-said").inner_text().startswith("LoRA 1: 57,600 scalars, learning rate")
    assert opened.complaints == []
