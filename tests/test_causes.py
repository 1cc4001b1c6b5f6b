"""What moves a run, on simulated runs whose causes are known."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from simulated import cell

from cpadapt import causes
from cpadapt.causes import AGAIN, BOTH, DRAW, ITEMS, ORDER, SEED, WEIGHTS
from cpadapt.claims import Cells
from cpadapt.contrasts import on_record
from cpadapt.errors import InputError
from cpadapt.record import Record
from cpadapt.statistics import Floats, effect_p_values, holm

CELLS = [("lora", 1), ("cp", 1), ("cp", 11), ("cp", 44)]


def table(rng: np.random.Generator, sds: tuple[float, float, float], shape: tuple[int, int] = (10, 10)) -> Floats:
    """Of one cause by another: what the first does, the second, and the two together."""
    rows, columns, rest = sds
    of_rows, of_columns = rng.normal(0, rows, (shape[0], 1)), rng.normal(0, columns, shape[1])
    return 0.8 + of_rows + of_columns + rng.normal(0, rest, shape)


def made(rng: np.random.Generator, weights: float = 0.02, order: float = 0.01, draw: float = 0.02) -> causes.Runs:
    """Together 0.01, again 0.005, and items whose ease varies by 0.3."""
    ease = rng.normal(0, 0.3, 100)
    return causes.Runs(
        by_order=table(rng, (weights, order, 0.01)),
        twice=0.8 + rng.normal(0, 0.005, (2, 10)),
        by_draw=table(rng, (0.0, draw, 0.01), (2, 30)),
        right=0.5 + ease + rng.normal(0, 0.1, (30, 100)),
    )


def test_each_variance_is_that_of_its_cause() -> None:
    rng = np.random.default_rng(0)
    found = pd.DataFrame([causes.causes(made(rng)) for _ in range(600)]).mean()
    truth = {WEIGHTS: 0.02**2, ORDER: 0.01**2, BOTH: 0.01**2, AGAIN: 0.005**2, DRAW: 0.02**2, ITEMS: 0.3**2 / 100}
    assert found.to_dict() == pytest.approx(truth, rel=0.06)


def test_weights_order_and_draw_are_tested_and_corrected_over_the_table() -> None:
    rng = np.random.default_rng(1)
    runs = {c: made(rng, weights=0.03, order=0.0, draw=0.0) for c in CELLS}
    tested = causes.frame(runs, "mine").dropna(subset=["p"])
    assert len(tested) == 6 * 3, "four adapters and two differences"
    assert tested["holm"].tolist() == holm(tested["p"].tolist())
    clear = tested[tested["holm"] < 0.05]
    assert list(zip(clear["of"], clear["cause"], strict=True)) == [(of, WEIGHTS) for of in tested["of"].unique()]
    one = tested[tested["of"] == "CP 11"].set_index("cause")["p"]
    assert (one[WEIGHTS], one[ORDER]) == effect_p_values(runs["cp", 11].by_order)
    assert one[DRAW] == effect_p_values(runs["cp", 11].by_draw)[1]


def test_a_frame_has_the_differences_of_runs_too() -> None:
    rng = np.random.default_rng(2)
    runs = {c: made(rng) for c in CELLS}
    found = causes.frame(runs, "sst2")
    assert set(found["task"]) == {"SST-2"}
    apart = found[found["of"] == "LoRA 1 − CP 11"].set_index("cause")["variance"]
    for_one = causes.causes(runs["lora", 1] - runs["cp", 11])
    assert apart.to_dict() == for_one
    assert for_one[AGAIN] == pytest.approx(
        np.mean(np.diff(runs["lora", 1].twice - runs["cp", 11].twice, axis=0) ** 2) / 2
    )
    drawn = causes.parts(found)
    assert set(drawn["of"]) == {"LoRA 1", "CP 1", "CP 11", "CP 44"}
    assert AGAIN not in set(drawn["cause"])
    assert causes.on_average(found)[WEIGHTS] == pytest.approx(
        math.sqrt(np.mean([causes.causes(of)[WEIGHTS] for of in runs.values()]))
    )


def test_a_table_brackets_what_is_not_clear() -> None:
    rows = [
        ("LoRA 1", WEIGHTS, 0.0, 1.0), ("LoRA 1", ORDER, 0.0001, 0.2), ("LoRA 1", BOTH, 0.0004, math.nan),
        ("LoRA 1", AGAIN, 0.0, math.nan), ("LoRA 1", DRAW, 0.000225, 0.01), ("LoRA 1", ITEMS, 0.0001, math.nan),
    ]  # fmt: skip
    shown = causes.cause_table(pd.DataFrame(rows, columns=["of", "cause", "variance", "holm"]))
    assert shown.to_dict("records") == [
        {"of": "LoRA 1", WEIGHTS: "–", ORDER: "(1.00)", BOTH: "2.00", AGAIN: "–", DRAW: "1.50", ITEMS: "1.00"}
    ]


def test_whether_adapters_rise_together_holds_its_level_and_is_seen() -> None:
    generator = np.random.default_rng(8)

    def drawn(shared_sd: float) -> Floats:
        # All rise together by `shared_sd`, run by run, and each by a part of its own.
        return generator.normal(0, shared_sd, (1, 30)) + generator.normal(0, 0.03, (4, 30))

    def p_value(runs: Floats) -> float:
        return causes.together(runs, 99, generator)[1]

    assert sum(p_value(drawn(0.0)) <= 0.05 for _ in range(200)) <= 16, "five of a hundred, and two standard errors"
    assert sum(p_value(drawn(0.03)) <= 0.05 for _ in range(20)) >= 16
    runs = drawn(0.03)
    of_pairs = np.corrcoef(runs)[np.triu_indices(4, 1)].mean()
    assert causes.together(runs, 1, generator)[0] == pytest.approx(of_pairs)


def test_means_are_of_what_is_shared() -> None:
    runs = {c: made(np.random.default_rng(k)) for k, c in enumerate(CELLS)}
    found = causes.means(runs)
    assert {shared: of.shape for shared, of in found.items()} == {
        WEIGHTS: (4, 10), ORDER: (4, 10), DRAW: (4, 30), SEED: (4, 30)
    }  # fmt: skip
    one = runs["cp", 1]
    assert found[WEIGHTS][1].tolist() == [row.mean() for row in one.by_order]
    assert found[ORDER][1] == pytest.approx([column.mean() for column in one.by_order.T])
    shown = causes.together_table({"sst2": found, "mine": {SEED: found[SEED]}}, 99, 0)
    assert shown["task"].tolist() == ["SST-2"] * 4 + ["mine"]
    assert shown["of them"].tolist() == [10, 10, 30, 30, 30]
    assert shown["p"].tolist()[3] == shown["p"].tolist()[4], "the same runs, shuffled alike"


def test_the_readout_alone_is_no_adapter() -> None:
    of = Cells({}, {("head", 0): cell([[1, 0]]), ("cp", 1): cell([[1, 1]]), ("lora", 1): cell([[0, 0]])}, {}, 0.5)
    assert causes.adapters(of).tolist() == [[1], [0]]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [r for r in on_record(["smollm2-orders"]) if (r.config.task, r.config.size) == ("rte", 1)]


def of_family(records: list[Record], family: str) -> list[Record]:
    return [r for r in records if r.config.family == family]


def test_runs_are_crossed_by_their_causes(records: list[Record]) -> None:
    some = of_family(records, "cp")
    found = causes.crossed(reversed(some), lambda c: (c.seed, c.order_seed))
    assert found.shape == (10, 10)
    for record in some:
        assert found[record.config.seed, record.config.order_seed] == record.outcome.accuracy


def test_what_is_not_crossed_is_refused(records: list[Record]) -> None:
    some = of_family(records, "cp")
    with pytest.raises(InputError, match=r"no run is at \(0, 0\)"):
        causes.crossed([r for r in some if r.config.seed + r.config.order_seed], lambda c: (c.seed, c.order_seed))
    with pytest.raises(InputError, match=r"two runs are at \(0, 0\)"):
        causes.crossed(records, lambda c: (c.seed, c.order_seed))
    with pytest.raises(InputError, match="no outcome"):
        causes.crossed([dataclasses.replace(some[0], outcome=None)], lambda c: (c.seed, c.order_seed))


def test_only_a_seeds_own_order_makes_its_run_again(records: list[Record]) -> None:
    some = of_family(records, "lora")
    free = [
        dataclasses.replace(r, config=dataclasses.replace(r.config, order_seed=None))
        for r in reversed(some)
        if r.config.seed == r.config.order_seed
    ]
    found = causes.repeated(some, free)
    assert found.shape == (2, 10)
    assert (found[0] == found[1]).all()
    with pytest.raises(InputError, match="no run with seed 0"):
        causes.repeated(some, [r for r in free if r.config.seed])
    with pytest.raises(InputError, match="no run has the order of its own seed"):
        causes.repeated(free, free)
