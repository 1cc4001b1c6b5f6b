"""Splits of the sides: what their runs are, and one number of each kind again from the records' own lines."""

import functools
import json

import numpy as np
import pytest
from by_hand import answers, corrected, judged, read, seeds_by_cell

from companion import quantities, tensorization

pytestmark = pytest.mark.slow  # the book's numbers, which whoever asks first computes

Cell = tuple[str, int]
TASKS = ("sst2", "rte", "boolq")
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
BOTH = pytest.mark.parametrize("studies", [tensorization.AT_PAPERS, tensorization.WITH_SEEDS])


@functools.cache
def right(study: str, task: str, cell: Cell, seeds: int) -> np.ndarray:
    """Right or wrong, seed by seed and item by item."""
    found = {
        line["config"]["seed"]: answers(line["outcome"])
        for line in read(study)
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *cell)
    }
    return np.array([found[seed] for seed in range(seeds)], dtype=float)


def apart(task: str, label: str) -> np.ndarray:
    """A split minus the default at the larger budget, at ten times the paper's rate."""
    default, others = tensorization.WITH_SEEDS
    size = SIZES[label][1]
    return right(others, task, (label, size), SEEDS) - right(default, task, ("cp", 44), SEEDS)


def step(label: str) -> int:
    """Scalars a component: a weight and the parts of both sides, of a query and a value projection in 30 layers."""
    wide, narrow = map(sum, PARTS[label])
    return 30 * ((wide + wide + 1) + (narrow + wide + 1))


@BOTH
def test_the_records_are_what_the_page_says(studies: tuple[str, str]) -> None:
    steps, rate = (5000, 2e-4) if studies == tensorization.AT_PAPERS else (2000, 2e-3)
    lines = [line for study in studies for line in read(study) if line["label"] in PARTS]
    (protocol,) = {json.dumps(line["config"]["protocol"]) for line in lines}
    assert json.loads(protocol)["steps"] == steps
    for line in lines:
        assert line["config"]["learning_rate"] == pytest.approx(rate), "the paper's, and ten times it"
        options = line["config"]["options"].get("tensor_shape")
        given = None if options is None else (tuple(options["576"]), tuple(options["192"]))
        assert given == (None if line["label"] == "cp" else PARTS[line["label"]])
        assert line["counts"]["adapter"] == step(line["label"]) * line["config"]["size"]
        assert line["diverged_at"] is None


@BOTH
def test_the_nearest_budgets(studies: tuple[str, str]) -> None:
    default, others = studies
    known = {line["config"]["size"] for line in read(default) if line["label"] == "cp"}
    tried = {(line["label"], line["config"]["size"]) for line in read(others)}
    first = 0 if studies == tensorization.AT_PAPERS else 1
    assert tried == {(label, size) for label in OTHERS for size in SIZES[label][first:]}
    for label, size in tried:
        missed = {one: abs(step("cp") * one / (step(label) * size) - 1) for one in known}
        nearest = min(missed, key=missed.__getitem__)
        assert nearest == SIZES["cp"][SIZES[label].index(size)]
        assert missed[nearest] < 0.05


def test_which_tasks_and_seeds_are_on_record() -> None:
    for studies, tasks, seeds in (
        (tensorization.AT_PAPERS, TASKS, FEW), (tensorization.WITH_SEEDS, TASKS[:2], SEEDS),
    ):  # fmt: skip
        assert {line["config"]["task"] for line in read(studies[1])} == set(tasks)
        for task in tasks:
            lines = (line for study in studies for line in read(study) if line["config"]["task"] == task)
            assert set.intersection(*seeds_by_cell(lines).values()) == set(range(seeds))
    for study in ("boolq-lifted", "boolq-lifted-verbalizer"):
        assert not {line["label"] for line in read(study)} & set(OTHERS), "not measured with others"


def test_what_a_split_changes() -> None:
    table = tensorization.split_table().to_dict("records")
    assert [list(row.values()) for row in table] == [
        ["24·24", "12·16", "5,220", "22 components, 114,840", "44 components, 229,680"],
        ["16·36", "8·24", "5,700", "20 components, 114,000", "40 components, 228,000"],
        ["12·48", "6·32", "6,600", "17 components, 112,200", "35 components, 231,000"],
        ["18·32", "12·16", "5,400", "21 components, 113,400", "43 components, 232,200"],
        ["8·8·9", "4·6·8", "2,850", "40 components, 114,000", "81 components, 230,850"],
    ]
    for label in PARTS:
        assert quantities.value(f"tensorization.step.{label.replace('-', '_')}").value == step(label)
    for side, parts in zip((576, 192), PARTS["cp"], strict=True):
        pairs = [(k, side // k) for k in range(1, side) if side % k == 0]
        assert parts == min(pairs, key=lambda pair: abs(pair[1] - pair[0])), "as near to each other as they go"


def test_differences_by_hand() -> None:
    found = {(task, label): judged(apart(task, label).tolist()) for task in TASKS[:2] for label in OTHERS}
    charted = tensorization.differences(tensorization.WITH_SEEDS).set_index(["group", "what"])
    for task in TASKS[:2]:
        for label in OTHERS:
            name = f"{label.removeprefix('cp-').replace('x', '·')}, {SIZES[label][1]} − CP 44"
            row = charted.loc[{"sst2": "SST-2", "rte": "RTE"}[task], name]
            by_hand = [found[task, label]["gap"], *found[task, label]["interval"]]
            assert [100 * row[end] for end in ("mean", "low", "high")] == pytest.approx(by_hand)
    expected = {
        "alike_p.sst2.most": max(found["sst2", label]["alike"] for label in OTHERS),
        "alike_p.rte.least": min(found["rte", label]["alike"] for label in OTHERS),
        "clear_p.rte": min(corrected([found["rte", label]["p"] for label in OTHERS])),
    }
    for name, p in expected.items():
        assert quantities.value(f"tensorization.{name}").value == pytest.approx(p)


def test_the_average_by_hand() -> None:
    by_hand = judged(np.mean([apart("rte", label) for label in OTHERS], axis=0).tolist())
    found = quantities.value("tensorization.rte_apart")
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    assert found.n == SEEDS
