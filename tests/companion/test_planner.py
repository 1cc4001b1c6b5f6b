"""The planner in the page counts as `cpadapt plan` does, over a grid of models, modules, budgets and units."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator

import in_browser
import pytest
from playwright.sync_api import Page

from companion import PROJECT, planner, which_adapter
from cpadapt.families import FAMILIES, counting, evidence
from cpadapt.inputs.backbones.specs import BACKBONES, Projection

pytestmark = pytest.mark.browser

COSTS = {"scalars": counting.count, "file": counting.file_bytes, "state": counting.adam_bytes}
MIB = {"state": 2**20}
ODD = planner.Model("odd", hidden=1009, layers=3, queries=1, keys=30, inner=6, gated=False)
TARGETS = (("q", "v"), ("q",), ("k", "o"), planner.TARGETS)
BUDGETS = (1, 700, 20_000, 57_600, 136_000, 1_000_000, 10**9)


@pytest.fixture(scope="module")
def script():
    with in_browser.opened() as browser:
        page = browser.new_page()
        page.add_script_tag(path=PROJECT / "book" / "assets" / "planner.js")
        yield page


def shapes(projections: list[Projection]) -> list[dict[str, int]]:
    counted = Counter((p.out_features, p.in_features) for p in projections)
    return [{"out": out, "in": into, "times": times} for (out, into), times in counted.items()]


@pytest.mark.parametrize("model", [*planner.MODELS, ODD], ids=lambda model: model.name)
@pytest.mark.long
def test_it_plans_as_the_command_does(script: Page, model: planner.Model) -> None:
    for targets, unit in itertools.product(TARGETS, COSTS):
        adapted = model.projections(targets)
        for budget in BUDGETS:
            found = script.evaluate(
                "([families, adapted, budget, unit]) => planner.plan(families, adapted, budget, unit)",
                [planner.OFFERED, shapes(adapted), budget / MIB.get(unit, 1), unit],
            )
            said = script.evaluate(
                "([rule, adapted, offers]) => planner.advise(rule, adapted, offers)",
                [planner.rule(), shapes(adapted), found],
            )
            offers = planner.offers(adapted, budget, COSTS[unit])
            advice = evidence.recommend(adapted, offers)
            lines = filter(None, (advice.take, advice.why, advice.unknown))
            assert said == [planner.typeset(line) for line in lines], (targets, unit, budget)
            for theirs, ours in zip(found, offers, strict=True):
                assert theirs["family"] == ours.family
                if ours.not_applicable:
                    assert "refused" in theirs
                    continue
                assert theirs["size"] == ours.size, (targets, unit, budget, ours.family)
                if ours.size:
                    assert (theirs["scalars"], theirs["file"]) == (ours.parameters, ours.file_bytes)
                    assert theirs["step"] == ours.step
                    assert theirs["rank"] == FAMILIES[ours.family].columns(ours.size)
                    assert theirs["ranks"] == ours.parameters / counting.count("lora", adapted, 1)
                else:
                    assert theirs["least"]["cost"] * MIB.get(unit, 1) == pytest.approx(ours.smallest_cost)


def test_the_script_counts_what_the_form_offers() -> None:
    script = (PROJECT / "book" / "assets" / "planner.js").read_text(encoding="utf-8")
    (table,) = re.findall(r"^  const FAMILIES = \{\n(.*?)^  \};", script, re.M | re.S)
    assert re.findall(r"^    (\w+): \{", table, re.M) == list(planner.OFFERED)
    assert set(planner.OFFERED) <= set(FAMILIES)


def test_a_first_rate_is_the_pages(script: Page) -> None:
    rows = which_adapter.rate_rows()
    for name, ranks in itertools.product(planner.OFFERED, (0.01, 1.0, 1.5, 3.9, 8.0, 9.0)):
        said = script.evaluate("([rows, ranks]) => planner.firstRate(rows, ranks)", [rows.get(name), ranks])
        assert said == which_adapter.first_rate_text(name, ranks), (name, ranks)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("57600", 57_600), ("57,600", 57_600), (" 1 000 000 ", 10**6), ("1e5", 10**5), ("100k", 10**5),
        ("1.5M", 1.5e6), ("1,024.5", 1024.5), ("0.25", 0.25), ("1,5", None), ("10,00", None), ("", None), ("k", None),
        ("many", None),
    ],
)  # fmt: skip
def test_a_budget_is_read_as_people_write_it(script: Page, text: str, number: float | None) -> None:
    assert script.evaluate("(text) => { const n = planner.amount(text); return n > 0 ? n : null; }", text) == number


@pytest.fixture
def page(script: Page) -> Iterator[Page]:
    """The form on a phone, in a column as wide as the book's is there."""
    browser, assets = script.context.browser, PROJECT / "book" / "assets"
    assert browser is not None
    page = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
    in_browser.listen(page)
    page.set_content(f'<main style="width: 326px">{planner.form()}</main>')
    page.add_style_tag(path=assets / "book.css")
    page.add_script_tag(path=assets / "planner.js")
    yield page
    page.close()


def test_it_plans_what_is_chosen(page: Page) -> None:
    table = page.locator(".planner tbody")
    first = table.inner_text()
    page.locator("select[name=model]").select_option("OPT-1.3B")
    page.locator("select[name=unit]").select_option("state")
    page.locator("input[name=budget]").fill("1.5")
    rows = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in table.locator("tr").all()}
    assert table.inner_text() != first
    # The paper's: 48 projections of 2048×2048.
    assert rows["LoRA"][:2] == ["1", "196,608"]
    assert rows["CP"][:2] == ["21", "194,544"]
    page.locator("input[name=slider]").press("End")
    assert "none" not in table.inner_text()
    assert page.complaints == []


@pytest.mark.parametrize("budget", ["20,000", "1e9", "1"])
def test_a_phone_shows_all_of_the_table(page: Page, budget: str) -> None:
    page.locator("input[name=budget]").fill(budget)
    table = page.locator(".planner-table")
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
    heads = [cell.get_attribute("data-head") for cell in table.locator("tr:nth-child(2) td").all()]
    assert heads == ([None, None] if budget == "1" else list(planner.HEADS[1:])), "each number says what it is"


def test_it_adapts_the_modules_that_are_chosen(script: Page) -> None:
    for model, targets in itertools.product((*planner.MODELS, ODD), TARGETS):
        sizes = {name: getattr(model, name) for name in (*planner.SIZES, "gated")}
        found = script.evaluate("([sizes, targets]) => planner.projections(sizes, targets)", [sizes, list(targets)])
        counted = Counter()
        for one in found:
            counted[one["out"], one["in"]] += one["times"]
        assert counted == Counter((p.out_features, p.in_features) for p in model.projections(targets))


def test_known_models_have_the_sizes_of_the_backbones() -> None:
    known = {spec.title: spec for spec in BACKBONES.values()}
    seen = 0
    for model in planner.MODELS:
        if model.name in known:
            seen += 1
            config = known[model.name].config()
            assert (model.hidden, model.layers) == (config.hidden_size, config.num_hidden_layers)
            per_layer = [p for p in known[model.name].linear_modules if ".0." in p.name]
            assert Counter((p.out_features, p.in_features) for p in per_layer) == Counter(
                (p.out_features, p.in_features) for p in model.projections(planner.TARGETS) if p.name.startswith("0.")
            )
    assert seen >= 4
