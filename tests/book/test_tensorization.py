"""Tensorization: every number again from the records' own lines, and what is said of them."""

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, judged, read, seeds_by_cell

Chapters = Callable[[str], Any]
Line = dict[str, Any]
Cell = tuple[str, int]
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
RATE = 2e-4
FEW, SEEDS = 3, 20
# By label how the sides are split, and the sizes at the smaller and at the larger budget.
PARTS = {
    "cp": ((24, 24), (12, 16)),
    "cp-16x36": ((16, 36), (8, 24)),
    "cp-12x48": ((12, 48), (6, 32)),
    "cp-18x32": ((18, 32), (12, 16)),
    "cp-8x8x9": ((8, 8, 9), (4, 6, 8)),
}
SIZES = {"cp": (22, 44), "cp-16x36": (20, 40), "cp-12x48": (17, 35), "cp-18x32": (21, 43), "cp-8x8x9": (40, 81)}
OTHERS = sorted(PARTS.keys() - {"cp"})


def studies(at_papers: bool) -> tuple[str, str]:
    """The default's and the others', at the paper's rate or at ten times it."""
    return ("smollm2", "smollm2-splits") if at_papers else ("smollm2-seeds", "smollm2-splits-seeds")


@functools.cache
def table(study: str, task: str, place: Cell, of: frozenset[int] | None = None) -> np.ndarray:
    """Right or wrong, seed by seed and item by item."""
    found = {
        line["config"]["seed"]: answers(line["outcome"])
        for line in read(study)
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *place)
    }
    return np.array([found[seed] for seed in sorted(found) if of is None or seed in of], dtype=float)


@functools.cache
def common(at_papers: bool, task: str) -> frozenset[int]:
    """The seeds with which every cell was run, of the default and of the others."""
    of_both = (line for study in studies(at_papers) for line in read(study) if line["config"]["task"] == task)
    return frozenset(set.intersection(*seeds_by_cell(of_both).values()))


@functools.cache
def splits(at_papers: bool) -> dict[tuple[str, str], dict[str, Any]]:
    """Each other split minus the default at the nearest budget, by task and by what is compared."""
    found = {}
    of_default, of_others = studies(at_papers)
    places = range(2) if at_papers else (1,)
    for task, label, k in itertools.product(TASKS if at_papers else ("sst2", "rte"), OTHERS, places):
        split, default = (label, SIZES[label][k]), ("cp", SIZES["cp"][k])
        name = f"{label.removeprefix('cp-').replace('x', '·')}, {split[1]} − CP {default[1]}"
        of = common(at_papers, task)
        gap = table(of_others, task, split, of) - table(of_default, task, default, of)
        found[TASKS[task], name] = judged(gap.tolist())
    return found


def step(label: str) -> int:
    """Scalars a component: a weight and the parts of both sides, of a query and a value projection in 30 layers."""
    wide, narrow = map(sum, PARTS[label])
    return 30 * ((wide + wide + 1) + (narrow + wide + 1))


def shown(page: Any, *columns: str) -> list[list[dict[str, str]]]:
    """All tables that have these columns."""
    found = [table for table in page.tables if set(columns) <= set(table[0])]
    return [[dict(zip(head, row, strict=True)) for row in rows] for head, *rows in found]


def expected_rows(at_papers: bool) -> list[dict[str, str]]:
    rows = []
    for group, of_group in itertools.groupby(splits(at_papers), key=lambda place: place[0]):
        each = {place: splits(at_papers)[place] for place in of_group}
        holm = corrected([found["p"] for found in each.values()])
        rows += [
            {"task": group, "split": name, "seeds": str(len(found["by seed"])), "points": f"{found['gap']:+.2f}",
             "95 % interval": "{:+.2f} to {:+.2f}".format(*found["interval"]), "Holm": f"{p:.3f}",
             "alike": f"{found['alike']:.3f}"}
            for ((_, name), found), p in zip(each.items(), holm, strict=True)
        ]  # fmt: skip
    return rows


def test_the_records_are_what_the_page_says() -> None:
    for at_papers, steps, rate in ((True, 5000, RATE), (False, 2000, 10 * RATE)):
        of = [line for study in studies(at_papers) for line in read(study) if line["label"] in PARTS]
        (protocol,) = {json.dumps(line["config"]["protocol"]) for line in of}
        assert json.loads(protocol)["steps"] == steps
        for line in of:
            assert line["config"]["learning_rate"] == pytest.approx(rate), "the paper's, and ten times it"
            options = line["config"]["options"].get("tensor_shape")
            given = None if options is None else (tuple(options["576"]), tuple(options["192"]))
            assert given == (None if line["label"] == "cp" else PARTS[line["label"]])
            assert line["counts"]["adapter"] == step(line["label"]) * line["config"]["size"]
            assert line["diverged_at"] is None


def test_the_nearest_budgets() -> None:
    for at_papers in (True, False):
        of_default, of_others = studies(at_papers)
        there = {line["config"]["size"] for line in read(of_default) if line["label"] == "cp"}
        tried = {(line["label"], line["config"]["size"]) for line in read(of_others)}
        assert tried == {(label, size) for label in OTHERS for size in SIZES[label][not at_papers :]}
        for label, size in tried:
            missed = {default: abs(step("cp") * default / (step(label) * size) - 1) for default in there}
            nearest = min(missed, key=missed.__getitem__)
            assert nearest == SIZES["cp"][SIZES[label].index(size)]
            assert missed[nearest] < 0.05


def test_which_tasks_and_seeds_are_on_record() -> None:
    assert {line["config"]["task"] for line in read("smollm2-splits")} == TASKS.keys()
    of_others = read("smollm2-splits-seeds")
    assert {line["config"]["task"] for line in of_others} == {"sst2", "rte"}
    assert {line["config"]["seed"] for line in of_others} == set(range(SEEDS))
    assert {common(at_papers=False, task=task) for task in ("sst2", "rte")} == {frozenset(range(SEEDS))}
    assert {common(at_papers=True, task=task) for task in TASKS} == {frozenset(range(FEW))}


def test_what_a_split_changes(chapter: Chapters) -> None:
    expected = [
        {
            "576 as": "·".join(map(str, wide)),
            "192 as": "·".join(map(str, narrow)),
            "scalars a component": f"{step(label):,}",
            "smaller budget": f"{SIZES[label][0]} components, {step(label) * SIZES[label][0]:,}",
            "larger budget": f"{SIZES[label][1]} components, {step(label) * SIZES[label][1]:,}",
        }
        for label, (wide, narrow) in PARTS.items()
    ]
    assert chapter("tensorization").rows("scalars a component") == expected


def test_differences(chapter: Chapters) -> None:
    found = shown(chapter("tensorization"), "split", "alike")
    assert found == [expected_rows(at_papers=True), expected_rows(at_papers=False)]


def test_numbers(chapter: Chapters) -> None:
    known = splits(at_papers=True).values()
    clear = sum(float(row["Holm"]) < 0.05 for row in expected_rows(at_papers=True))
    expected = {}
    for task in ("sst2", "rte"):
        gaps = [found["gap"] for (name, _), found in splits(at_papers=False).items() if name == TASKS[task]]
        expected |= {f"{task}_least": f"{min(gaps):+.2f}", f"{task}_most": f"{max(gaps):+.2f}"}
    apart = rte_apart()
    assert chapter("tensorization").glued == expected | {
        "long": "576",
        "short": "192",
        "few": str(FEW),
        "seeds": str(SEEDS),
        "splits": str(len(OTHERS)),
        "clear": {0: "none"}[clear],
        "pairs": str(len(known)),
        "alike": {0: "none"}[sum(p < 0.05 for p in corrected([found["alike"] for found in known]))],
        "rte_apart": f"{apart['gap']:+.2f}",
        "rte_apart_ends": "{:+.2f} to {:+.2f}".format(*apart["interval"]),
        "rte_apart_error": f"{apart['error']:.2f}",
        "rte_apart_end": f"{apart['items alone']:.2f}",
    }


def rte_apart() -> dict[str, Any]:
    """The average over the other splits minus the default, on RTE."""
    of_default, of_others = studies(at_papers=False)
    of = common(at_papers=False, task="rte")
    others = [table(of_others, "rte", (label, SIZES[label][1]), of) for label in OTHERS]
    return judged((np.mean(others, axis=0) - table(of_default, "rte", ("cp", 44), of)).tolist())


def test_the_charts(chapter: Chapters) -> None:
    for chart, at_papers in zip(chapter("tensorization").charts, (True, False), strict=True):
        rows = [row for rows in chart["datasets"].values() for row in rows]
        drawn = [row for row in rows if "what" in row]
        assert [(row["group"], row["what"]) for row in drawn] == list(splits(at_papers))
        for row, found in zip(drawn, splits(at_papers).values(), strict=True):
            assert [row["mean"], row["low"], row["high"]] == pytest.approx([found["gap"], *found["interval"]])
            assert row["seeds"] == len(found["by seed"])
        assert sorted(row["at"] for row in rows if "at" in row) == [-1, 0, 1], "a point on either side of none"


def test_what_is_said() -> None:
    known, well = splits(at_papers=True), splits(at_papers=False)
    assert len(well) == 2 * len(OTHERS)
    for (task, _), found in well.items():
        low, high = found["one-sided"]
        assert (-1 < low < high < 1) == (found["alike"] < 0.05) == (task == TASKS["sst2"]), "shown within a point"
        if task == TASKS["rte"]:
            assert found["gap"] < 0, "all have a lower mean"
            assert found["p"] > 0.05, "none is clear, the least corrected"
    low, high = rte_apart()["interval"]
    assert -2 < low < -1 < 0 < high, "may be nothing and may be more than a point"
    assert rte_apart()["items alone"] < rte_apart()["error"] / 2, "more seeds would still tell more"
    assert all(low < 0 < high for low, high in (found["interval"] for found in known.values())), "none is clear"


def test_what_is_said_of_parts() -> None:
    for side, parts in zip((576, 192), PARTS["cp"], strict=True):
        pairs = [(k, side // k) for k in range(1, side) if side % k == 0]
        assert parts == min(pairs, key=lambda pair: abs(pair[1] - pair[0])), "as near to each other as they go"
        assert all(np.prod(split[side == 192]) == side for split in PARTS.values())
    apart = sorted((label for label in PARTS if label != "cp-8x8x9"), key=lambda label: np.ptp(PARTS[label][0]))
    assert all(step(a) < step(b) for a, b in itertools.pairwise(apart)), "further apart cost more"
    assert step("cp-8x8x9") / step("cp") == pytest.approx(0.5, abs=0.05), "three parts cost about half"
    for three, two in zip(SIZES["cp-8x8x9"], SIZES["cp"], strict=True):
        assert 1.8 < three / two < 2, "and buy nearly twice as many components"
    assert max(SIZES, key=lambda label: SIZES[label][1]) == "cp-8x8x9", "it may reach the highest rank"
    assert SIZES["cp-8x8x9"][1] < 192, "as the sides allow more"


def test_what_is_said_of_tasks() -> None:
    classes = next(r for r in read("smollm2") if r["config"]["task"] == "boolq")["data"]["sets"]["eval"]["classes"]
    of_default, of_others = studies(at_papers=True)
    adapters = [
        table(of_default if label == "cp" else of_others, "boolq", (label, size))
        for label, sizes in SIZES.items()
        for size in sizes
    ]
    over = judged((np.mean(adapters, axis=0) - max(classes.values()) / sum(classes.values())).tolist())
    assert over["one-sided"][0] <= 0, "on BoolQ adapters are not shown to be above the commonest answer at this rate"
    for of_rte in (common(at_papers=False, task="rte"), frozenset(range(100))):
        gain = table("smollm2-seeds", "rte", ("cp", 44), of_rte) - table("smollm2-seeds", "rte", ("cp", 1), of_rte)
        assert judged(gain.tolist())["interval"][0] > 0, "on RTE components seem to pay"
    for study, task, pays in (("smollm2-seeds", "sst2", False), ("boolq-lifted", "boolq", True)):
        gain = judged((table(study, task, ("cp", 44)) - table(study, task, ("cp", 1))).tolist())
        low, high = gain["one-sided"]
        assert low > 1 if pays else -1 < low < high < 1, "on SST-2 accuracy hardly depends on components either"
    for study in ("boolq-lifted", "boolq-lifted-verbalizer"):
        assert not {line["label"] for line in read(study)} & set(OTHERS), "not measured with others"
