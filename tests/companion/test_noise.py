"""Where errors come from, on simulated cells whose variances are known."""

import dataclasses
import math

import numpy as np
import pytest
from simulated import Simulation, cell

from companion import noise, quantities
from cpadapt.analysis.cells import Cells
from cpadapt.errors import InputError

pytestmark = pytest.mark.slow  # the book's numbers, which whoever asks first computes

GRID = [("head", 0), ("lora", 1), ("lora", 2), ("cp", 1), ("cp", 11), ("cp", 22)]
BUDGETS = dict(zip(GRID, [0, 1000, 2000, 90, 990, 1980], strict=True))


def made(seeds: int = 3, items: int = 400, seed_sd: float = 0.3) -> Cells:
    drawn = Simulation(seeds, items, seed_sd).draw(np.random.default_rng(3), len(GRID) * [0.8])
    return Cells(BUDGETS, dict(zip(GRID, drawn, strict=True)), {}, 0.5)


def test_a_difference_on_the_same_items_has_less_of_their_variance() -> None:
    cells = made(seeds=10, items=4000, seed_sd=0.02)
    found = noise.sources(cells)
    assert list(found) == [noise.ONE_ACCURACY, noise.ONE_BUDGET, noise.NEXT_SIZE]
    assert found[noise.ONE_BUDGET].item_variance < found[noise.ONE_ACCURACY].item_variance
    assert noise.unpaired(cells) > 1.5 * found[noise.ONE_BUDGET].standard_error


def test_runs_that_vary_more_agree_less() -> None:
    assert noise.disagreement(made(seed_sd=1.0)) > noise.disagreement(made(seed_sd=0.0)) > 0


def test_cells_without_outcomes_are_left_out() -> None:
    whole = made()
    part = dataclasses.replace(whole, outcomes={p: one for p, one in whole.outcomes.items() if p != ("cp", 11)})
    found = noise.sources(part)
    alone = whole.outcomes["lora", 2].right - whole.outcomes["cp", 22].right
    assert found[noise.ONE_BUDGET].mean == pytest.approx(alone.mean())
    assert noise.unpaired(part) > 0


def test_the_smallest_effects_are_seen_four_times_in_five() -> None:
    found = {"mine": noise.sources(made())[noise.ONE_BUDGET]}
    table = noise.smallest_effects(found, [3, 30])
    assert [(row["task"], row["seeds"]) for row in table.to_dict("records")] == [("mine", 3), ("mine", 30)]
    for row in table.to_dict("records"):
        assert found["mine"].power(row["effect"], row["seeds"], 400) == pytest.approx(0.8)


def test_intervals_are_drawn_in_every_way_that_was_measured() -> None:
    rows = noise.interval_rows("rte").to_dict("records")
    assert len(rows) == 3 * (len(noise.PAIRS) - 1), "all but the readout's"
    (lead,) = (r for r in rows if (r["group"], r["what"]) == ("dev, over draws", "LoRA 1 − CP 11"))
    known = quantities.value("noise.on_dev.rte.lora1_cp11")
    assert [100 * lead[end] for end in ("mean", "low", "high")] == pytest.approx([known.value, known.low, known.high])
    assert lead["seeds"] == 30
    assert {row["group"] for row in noise.interval_rows("boolq").to_dict("records")} == {"eval, over seeds"}


def test_what_is_not_above_zero_is_left_open_and_what_is_out_of_reach_is_never() -> None:
    """As by the formula of an error of means, from the variances that are estimated of the records."""
    parts, needed = noise.source_table(), noise.need_table()
    found = noise.sources(noise.at_papers_rates("rte"))
    for what, e in found.items():
        (row,) = parts[(parts["task"] == "RTE") & (parts["estimate"] == what)].to_dict("records")
        assert (row["seeds"] == "–") == (e.seed_variance == 0)
        error = math.sqrt((e.seed_variance + e.rest_variance / e.items) / 10 + e.item_variance / e.items)
        assert float(row["10 seeds"]) == pytest.approx(100 * error, abs=0.0051)
    (row,) = needed[(needed["task"] == "RTE") & (needed["difference"] == noise.ONE_BUDGET)].to_dict("records")
    assert row["seeds, for 1"] == "never"
    assert found[noise.ONE_BUDGET].power(0.01, noise.MOST_SEEDS, found[noise.ONE_BUDGET].items) < noise.ENOUGH
    (row,) = needed[(needed["task"] == "SST-2") & (needed["difference"] == noise.ONE_BUDGET)].to_dict("records")
    e = noise.sources(noise.at_papers_rates("sst2"))[noise.ONE_BUDGET]
    fewest = int(row["seeds, for 1"])
    assert e.power(0.01, fewest - 1, e.items) < noise.ENOUGH <= e.power(0.01, fewest, e.items)


def test_the_interval_of_a_spread_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [low < 2 < high for _, low, high in (noise.spread(rng.normal(5, 2, 10).tolist()) for _ in range(2000))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    sd, low, high = noise.spread([1.0, 2.0, 3.0])
    assert sd == pytest.approx(1)
    assert low < sd < high
    with pytest.raises(InputError, match="1 runs"):
        noise.spread([0.8])


def test_how_often_a_few_seeds_have_the_wrong_sign() -> None:
    # Differences by seed, in items: +2, +2, −3. All together +1; of pairs +4, −1 and −1.
    a, b = cell([[1, 1, 0], [1, 1, 0], [0, 0, 0]]), cell([[0, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert [noise.wrong_sign(a, b, count) for count in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 0])
    # No difference is another sign.
    level = cell([[0, 0, 0], [0, 0, 0], [0, 1, 1]])
    assert noise.wrong_sign(a, level, 1) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="4 of 3 seeds"):
        noise.wrong_sign(a, b, 4)
    with pytest.raises(InputError, match="0 of 3 seeds"):
        noise.wrong_sign(a, b, 0)


def test_every_run_is_listed() -> None:
    cells = made(seeds=4)
    listed = noise.runs({"seeds": cells, "draws": made(seeds=2)})
    assert len(listed) == len(GRID) * (4 + 2)
    mine = listed[(listed["over"] == "seeds") & (listed["label"] == "lora") & (listed["size"] == 2)]
    assert mine["accuracy"].tolist() == cells.outcomes["lora", 2].right.mean(1).tolist()
