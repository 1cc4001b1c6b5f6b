"""The draws of three seeds have the records' numbers and, over all choices, the share that the page prints."""

import itertools
import json
import re
from collections.abc import Iterator

import in_browser
import pytest
from by_hand import answers, read
from playwright.sync_api import Page

from companion import PROJECT, quantities, three_seeds


def right(label: str, size: int) -> list[int]:
    """How many items each run has right, by seed."""
    found = {
        line["config"]["seed"]: sum(answers(line["outcome"]))
        for line in read("smollm2-seeds")
        if (line["config"]["task"], line["label"], line["config"]["size"]) == ("sst2", label, size)
    }
    return [found[seed] for seed in sorted(found)]


def data() -> dict[str, list[int]]:
    """What the page embeds."""
    found: dict[str, list[int]] = json.loads(re.search(r"<script[^>]*>(.*)</script>", three_seeds.form())[1])
    return found


def test_it_has_the_accuracies_of_the_records() -> None:
    found = data()
    assert (found["lora"], found["cp"]) == (right("lora", 1), right("cp", 11))
    assert (found["items"], found["seeds"]) == (872, list(range(100)))


def test_bars_by_hand() -> None:
    # Sums of three: 2 + 0 − 2 = 0, 2 + 0 + 9 = 11, 2 − 2 + 9 = 9 and 0 − 2 + 9 = 7; each a third of a point.
    assert three_seeds.bars([2, 0, -2, 9], items=100) == {0.0: 1, 2.5: 1, 3.0: 1, 3.75: 1}
    assert three_seeds.bars([-1, 0, 0], items=100) == {-0.25: 1}, "up to and with the end"


def test_the_bars_without_a_lead_are_the_share_that_is_printed() -> None:
    found = three_seeds.bars([a - b for a, b in zip(right("lora", 1), right("cp", 11), strict=True)], 872)
    missed = 100 * sum(ways for end, ways in found.items() if end <= 0) / sum(found.values())
    assert missed == pytest.approx(quantities.value("noise.wrong_sign.sst2.lora1_cp11").value)
    assert min(found) > three_seeds.LOW
    assert max(found) <= three_seeds.HIGH


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    with in_browser.opened() as browser:
        page = browser.new_page(offline=True)
        page.set_content(three_seeds.form())
        page.add_script_tag(path=PROJECT / "book" / "assets" / "three_seeds.js")
        yield page


@pytest.mark.browser
@pytest.mark.long
def test_every_choice_and_many_draws_have_the_share_that_is_printed(opened: Page) -> None:
    expected = quantities.value("noise.wrong_sign.sst2.lora1_cp11").value
    choices = list(itertools.combinations(range(100), 3))
    missed = opened.evaluate(
        "([data, choices]) => choices.filter((three) => threeSeeds.gap(data, three) <= 0).length", [data(), choices]
    )
    assert 100 * missed / len(choices) == pytest.approx(expected)
    drawn = opened.evaluate(
        """(data) => {
          let state = 1; // of a generator with fixed draws (mulberry32)
          const random = () => {
            state = (state + 0x6d2b79f5) | 0;
            let t = Math.imul(state ^ (state >>> 15), state | 1);
            t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
            return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
          };
          const draws = Array.from({ length: 40000 }, () => threeSeeds.pick(100, random));
          const often = Array(100).fill(0);
          for (const place of draws.flat()) often[place] += 1;
          return {
            missed: draws.filter((three) => threeSeeds.gap(data, three) <= 0).length / draws.length,
            different: draws.every((three) => new Set(three).size === 3 && three.every((p) => p >= 0 && p < 100)),
            often: [Math.min(...often), Math.max(...often)],
          };
        }""",
        data(),
    )
    # The standard error of 40,000 draws is 0.18 points.
    assert 100 * drawn["missed"] == pytest.approx(expected, abs=0.8)
    assert drawn["different"]
    # Each seed is in 1200 draws, give or take 34.
    assert 1200 - 4 * 34 < drawn["often"][0] <= drawn["often"][1] < 1200 + 4 * 34


@pytest.mark.browser
def test_buttons_draw_and_start_over_by_keyboard(opened: Page) -> None:
    strokes, last, tally = (opened.locator(f".three-seeds-{name}") for name in ("drawn line", "last", "tally"))
    assert "Nothing is trained" in last.inner_text()
    opened.locator("button[name=one]").focus()
    opened.keyboard.press("Enter")
    assert strokes.count() == 1
    said = re.fullmatch(
        r"Seeds (\d+), (\d+) and (\d+): LoRA ([\d.]+)\u202f%, CP ([\d.]+)\u202f%\. (LoRA wins|CP wins|Neither wins)\.",
        last.inner_text(),
    )
    seeds = [int(seed) for seed in said.groups()[:3]]
    lora, cp = (sum(found[seed] for seed in seeds) for found in (right("lora", 1), right("cp", 11)))
    assert [float(found) for found in said.groups()[3:5]] == pytest.approx(
        [100 * lora / 3 / 872, 100 * cp / 3 / 872], abs=0.051
    )
    assert said[6] == ("LoRA wins" if lora > cp else "CP wins" if lora < cp else "Neither wins")
    missed = int(lora <= cp)
    assert tally.inner_text() == f"1 draw: CP ahead, or neither, in {missed} ({100 * missed}\u202f%)."
    opened.keyboard.press("Tab")
    opened.keyboard.press("Space")
    assert strokes.count() == 101
    assert tally.inner_text().startswith("101 draws: CP ahead, or neither, in ")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    assert (strokes.count(), tally.inner_text()) == (0, "")
