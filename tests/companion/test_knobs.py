"""The experiment on CP's hidden knobs: its design is what it says, and its files run in small from end to end."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import answers, bits, corrected, read
from numpy.typing import NDArray
from scipy.stats import t

from companion import PROJECT, knobs, quantities
from cpadapt import Ladder, Study, load_study, train
from cpadapt.analysis.factors import contrasts, effects, terms_of
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.records.store import load_records
from cpadapt.study import with_protocol

STUDIES = ("knobs-smollm2", "knobs-0.5b")


def study(name: str) -> Study:
    return load_study(PROJECT / "studies" / f"{name}.toml")


def codes(asked: Study) -> NDArray[np.int64]:
    """`[settings, factors]`, of CP's runs on one task and draw."""
    runs = [run.config for run in asked.runs(load_projections(asked.backbone), task="sst2")]
    draw = asked.draws[0]
    of_cp = [config for config in runs if config.family == "cp" and config.seed == draw]
    return np.array([[factor.code(config) for factor in knobs.FACTORS] for config in of_cp])


@pytest.mark.parametrize("name", STUDIES)
def test_the_design_is_a_half_fraction_of_resolution_six_and_ten_settings_more(name: str) -> None:
    found = codes(study(name))
    corners = found[(found != 0).all(1)]
    assert len(np.unique(found, axis=0)) == len(found) == 42
    assert len(np.unique(corners, axis=0)) == len(corners) == 32
    words = [
        columns
        for length in range(1, 7)
        for columns in itertools.combinations(range(6), length)
        if len(set(corners[:, columns].prod(1))) == 1
    ]
    assert words == [(0, 1, 2, 3, 4, 5)], "no fewer than six factors multiply to a constant"
    assert set(corners.prod(1)) == {1}
    # Main effects and interactions of the corners alone are plain differences of means, each of the others apart.
    terms = [term for term in terms_of(knobs.FACTORS) if len(set(term)) == len(term)]
    names = [factor.name for factor in knobs.FACTORS]
    columns = np.stack([corners[:, [names.index(one) for one in term]].prod(1) for term in terms])
    assert (columns @ columns.T == 32 * np.eye(len(terms))).all()
    # With the ten others the curvatures of three factors can be told too, and no term costs much.
    error = np.sqrt((contrasts(found.astype(float), knobs.FACTORS) ** 2).sum(1))
    assert error[:21].max() < 1.05 * 2 / np.sqrt(32)
    assert error[21:].max() < 0.8


@pytest.mark.parametrize("name", STUDIES)
def test_lora_and_cp_without_the_knobs_have_equally_many_settings(name: str) -> None:
    asked = study(name)
    projections = load_projections(asked.backbone)
    runs = [run for run in asked.runs(projections, task="sst2") if run.config.seed == asked.draws[0]]
    assert [sum(run.label == label for run in runs) for label in ("lora", "cp")] == [8, 8]
    assert {run.config.options["raw_norm"] for run in runs if run.label == "cp"} == {1.0}
    (size,) = asked.ladder.sizes["cp"]
    assert set(asked.ladder.sizes.values()) == {(1,), (size,)}
    rank = asked.count(projections, "lora", 1)
    assert asked.count(projections, "cp", size) <= rank < asked.count(projections, "cp", size + 1)


def test_the_two_backbones_differ_in_size_alone() -> None:
    one, other = map(study, STUDIES)
    same = {"name": "same", "about": "", "backbone": "tiny", "ladder": Ladder(head=True)}
    assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


@pytest.mark.long
def test_a_study_runs_in_small_from_its_file_to_its_effects(tmp_path: Path) -> None:
    """On two random layers, a generated task and two draws, at all of the file's settings."""
    asked = study("knobs-smollm2")
    asked = dataclasses.replace(
        asked, backbone="tiny", tasks=("toy-sentiment",), draws=(201, 202),
        ladder=Ladder(sizes=dict.fromkeys(asked.ladder.sizes, (1,))),
    )  # fmt: skip
    asked = with_protocol(asked, steps=52, eval_every=26, batch_size=1, train_cap=16, dev_cap=24, dtype="float32")
    train(asked, results=tmp_path, quiet=True)
    records = load_records(tmp_path)
    assert len(records) == 2 * 50
    found = effects([record for record in records if record.config.family == "cp"], knobs.FACTORS)
    assert len(found) == 6 + 15 + 3
    assert all(np.isfinite(effect.mean.interval()).all() for effect in found.values())
    settings = knobs.chosen(records)
    for name, labels in {knobs.LORA: "lora", knobs.TODAY: "cp", knobs.KNOBS: "cp-.*|cp"}.items():
        on_dev: dict[str, list[float]] = {}
        for record in records:
            if re.fullmatch(labels, record.label):
                setting = dataclasses.replace(record.config, task="any", seed=0, data_seed=0).config_id
                on_dev.setdefault(setting, []).append(record.best.dev_accuracy if record.best else 0.0)
        assert len(on_dev) == (42 if name == knobs.KNOBS else 8)
        best = max(map(np.mean, on_dev.values()))
        assert np.mean(on_dev[settings[name].config_id]) == pytest.approx(best)
    assert [setting.family for setting in settings.values()] == ["lora", "cp", "cp"]
    assert settings[knobs.TODAY].options["raw_norm"] == 1.0


# The records of SmolLM2, once more.

KNOWN = {
    "rate": (2e-3, 8e-3), "scale": (4, 16), "warmup": (0, 50), "length": (0.5, 2), "start": (0, 0.05),
    "decay": (0, 0.3),
}  # fmt: skip
"""Each knob's low and high level, as the plan has them; what is between them is the middle."""

TASKS = ("rte", "sst2", "trec")


def values_of(line: Mapping[str, Any]) -> tuple[float, ...]:
    """A run's knobs, in the order of `KNOWN`."""
    config = line["config"]
    start = config["options"].get("init_std") or 0 if config["options"]["init"] == "normal" else 0
    return (
        config["learning_rate"], config["scale"], config.get("warmup_steps") or 0, config["options"]["raw_norm"],
        start, config["options"]["lambda_decay"],
    )  # fmt: skip


def best(line: Mapping[str, Any]) -> int:
    """Dev items right at a run's best step."""
    (found,) = (each for each in line["evaluations"] if each["step"] == line["best_step"])
    assert found["dev_total"] == 500
    return int(found["dev_correct"])


@functools.cache
def lines() -> dict[tuple[str, int], dict[tuple[float, ...], dict[str, Any]]]:
    """CP's runs by task and draw, then by their knobs."""
    found: dict[tuple[str, int], dict[tuple[float, ...], dict[str, Any]]] = {}
    for line in read("knobs-smollm2"):
        if line["config"]["family"] == "cp":
            block = found.setdefault((line["config"]["task"], line["config"]["data_seed"]), {})
            assert values_of(line) not in block
            block[values_of(line)] = line
    assert len(found) == 3 * 6
    return found


@functools.cache
def settings() -> list[tuple[float, ...]]:
    (known,) = {tuple(sorted(block)) for block in lines().values()}
    assert len(known) == 42
    return list(known)


def coded(setting: tuple[float, ...]) -> dict[str, int]:
    return {
        name: (value == high) - (value == low)
        for (name, (low, high)), value in zip(KNOWN.items(), setting, strict=True)
    }


@functools.cache
def weights() -> dict[str, NDArray[np.float64]]:
    """What each setting's accuracy counts in each effect: the normal equations, solved for each setting alone."""
    names = [*KNOWN, *(f"{a}_{b}" for a, b in itertools.combinations(KNOWN, 2))]
    names += [f"{name}_{name}" for name in ("rate", "scale", "length")]
    table = np.array(
        [[1, *(math.prod(coded(s)[part] for part in name.split("_")) for name in names)] for s in settings()], float
    )
    fitted = np.linalg.solve(table.T @ table, table.T)[1:]
    times = [1 if len(set(name.split("_"))) < len(name.split("_")) else 2 for name in names]
    return {name: row * k for name, row, k in zip(names, fitted, times, strict=True)}


def accuracies() -> NDArray[np.float64]:
    """`[tasks, draws, settings]`, in percent, from what the evaluations say."""
    draws = range(201, 207)
    return np.array(
        [[[best(lines()[task, draw][s]) / 5 for s in settings()] for draw in draws] for task in TASKS]
    )  # fmt: skip


@functools.cache
def asked(task: str, draw: int) -> tuple[list[int], NDArray[np.float64]]:
    """The rows of a draw's dev set, and the answers of all settings on them."""
    block = lines()[task, draw]
    outcome = block[settings()[0]]["dev"]
    rows = [row for row, drawn in enumerate(bits(outcome["drawn"], outcome["rows"])) if drawn]
    return rows, np.array([answers(block[s]["dev"]) for s in settings()], float)


def on_one_task(task: str, row: NDArray[np.float64]) -> tuple[dict[int, float], float, float]:
    """A weighted sum of settings on one task, in points: its mean by draw, squared error and degrees of freedom."""
    tables = {}
    for draw in range(201, 207):
        rows, right = asked(task, draw)
        tables[draw] = dict(zip(rows, (100 * (row @ right)).tolist(), strict=True))
    means = {draw: sum(table.values()) / len(table) for draw, table in tables.items()}
    mean = sum(means.values()) / 6
    between = sum((one - mean) ** 2 for one in means.values()) / 5 / 6
    # The variance of items from those that two draws were both asked: a sum of products, over what it is expected to
    # be for a variance of 1.
    products = expected = overlap = 0.0
    for a, b in itertools.permutations(tables, 2):
        both = tables[a].keys() & tables[b].keys()
        products += sum((tables[a][i] - means[a]) * (tables[b][i] - means[b]) for i in both)
        # A draw's own mean takes 1/500 of each of its items away from the item's deviation.
        expected += len(both) * (1 - 2 / 500 + len(both) / 500**2)
        overlap += len(both) / 500**2 / 30
    of_items = products / expected
    left = sum((x - means[draw]) ** 2 for draw, table in tables.items() for x in table.values()) / (6 * 499) - of_items
    common = max(of_items, 0.0) * overlap
    alone = ((of_items + left) / 500 - overlap * of_items) / 6
    number = len(set().union(*tables.values()))
    spread = between**2 / 5
    if common:
        spread += (alone + common) ** 2 / (number - 1) + alone**2 / max(3000 - 6 - number + 1, 1)
    return means, between + common, max((between + common) ** 2 / spread, 5.0)


def over_the_tasks(row: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A weighted sum of settings over the three tasks, in points: its mean, the ends of its interval, and p."""
    found = [on_one_task(task, row) for task in TASKS]
    means = np.array([[by_draw[draw] for draw in range(201, 207)] for by_draw, _, _ in found])
    parts = [variance / 9 for _, variance, _ in found]
    # A draw's seed is the same on all tasks, and so its effect on all of them does not average out.
    pairs = [np.cov(means[a], means[b])[0, 1] for a, b in itertools.combinations(range(3), 2)]
    shared = max(sum(pairs) / 3, 0.0) * (2 / 3) / 6
    error = math.sqrt(sum(parts) + shared)
    degrees = sum(parts) ** 2 / sum(part**2 / df for part, (_, _, df) in zip(parts, found, strict=True))
    mean, reach = float(means.mean()), float(t.ppf(0.975, degrees)) * error
    return mean, mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error, degrees))


@pytest.mark.slow
def test_effects_intervals_and_holm_by_hand() -> None:
    by_hand = {name: over_the_tasks(row) for name, row in weights().items()}
    reached = accuracies()
    holm = corrected([p for _, _, _, p in by_hand.values()])
    assert list(by_hand) == list(knobs.terms())
    for (name, (mean, low, high, _)), p in zip(by_hand.items(), holm, strict=True):
        effect = quantities.value(f"knobs.effect.{name}.smollm2")
        assert (effect.value, effect.low, effect.high) == pytest.approx((mean, low, high), abs=1e-6)
        assert quantities.value(f"knobs.p_value.{name}.smollm2").value == pytest.approx(p, rel=1e-5)
        # From what the evaluations count, not from the answers to each item.
        assert mean == pytest.approx(float((reached @ weights()[name]).mean()))
        for task, of_task in zip(TASKS, reached, strict=True):
            on_task = quantities.value(f"knobs.by_task.{name}.{task}.smollm2")
            _, variance, degrees = on_one_task(task, weights()[name])
            reach = float(t.ppf(0.975, degrees)) * math.sqrt(variance)
            middle = float((of_task @ weights()[name]).mean())
            assert (on_task.value, on_task.low, on_task.high) == pytest.approx(
                (middle, middle - reach, middle + reach), abs=1e-6
            )
    shown = [name for name, p in zip(by_hand, holm, strict=True) if p < 0.05]
    assert sorted(shown) == ["rate_length", "rate_scale", "scale_length"]
    assert quantities.value("knobs.shown.smollm2").value == 3
    left_out = [name for name, (_, low, high, _) in by_hand.items() if not low <= 0 <= high]
    assert quantities.value("knobs.before_correction.smollm2").value == len(left_out) - 3


@pytest.mark.slow
def test_the_corners_alone_say_nearly_the_same() -> None:
    """Differences of plain means over half of the 32 corners each, which the ten other settings hardly move."""
    mean = accuracies().mean((0, 1))
    codes = [coded(setting) for setting in settings()]
    corners = [k for k, code in enumerate(codes) if all(code.values())]
    assert len(corners) == 32
    for name in weights():
        first, *other = name.split("_")
        if other != [first]:
            sign = [math.prod(codes[k][part] for part in (first, *other)) for k in corners]
            assert sum(sign) == 0
            plain = sum(s * mean[k] for s, k in zip(sign, corners, strict=True)) / 16
            assert quantities.value(f"knobs.effect.{name}.smollm2").value == pytest.approx(plain, abs=0.25)


@pytest.mark.slow
def test_a_knob_beside_another_by_hand() -> None:
    mean = accuracies().mean((0, 1))
    codes = [coded(setting) for setting in settings()]
    for knob, other in (("rate", "length"), ("rate", "scale"), ("scale", "length")):
        for side, level in (("lower", -1), ("upper", 1)):
            row = weights()[knob] + level * weights()[f"{knob}_{other}"]
            beside = quantities.value(f"knobs.beside.{knob}_{other}.{side}.smollm2")
            assert (beside.value, beside.low, beside.high) == pytest.approx(over_the_tasks(row)[:3], abs=1e-6)
            # Of the corners with the other knob at that level, those with the knob high minus those with it low.
            sides = [
                [m for m, code in zip(mean, codes, strict=True)
                 if all(code.values()) and code[other] == level and code[knob] == one]
                for one in (1, -1)
            ]  # fmt: skip
            assert [len(one) for one in sides] == [8, 8]
            assert beside.value == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]), abs=0.3)


@pytest.mark.slow
def test_the_dial_by_hand() -> None:
    reached = accuracies().mean(1)
    dial = np.array([rate * scale / length / (4e-3 * 8) for rate, scale, _, length, _, _ in settings()])
    places = sorted({float(f"{one:.6g}") for one in dial})
    assert places == [0.125, 0.5, 1, 2, 8]
    of_place = {place: np.isclose(dial, place) for place in places}
    assert [int(here.sum()) for here in of_place.values()] == [4, 16, 2, 16, 4]
    for end, place in (("least", 0.125), ("most", 8)):
        row = of_place[place] / 4 - 1 / 42
        cost = quantities.value(f"knobs.dial_end.{end}.smollm2")
        assert (cost.value, cost.low, cost.high) == pytest.approx(over_the_tasks(row)[:3], abs=1e-6)
        middle = np.mean([task[of_place[place]].mean() - task.mean() for task in reached])
        assert cost.value == pytest.approx(middle)
    for name, task, place in (("turned_up", "rte", 8), ("turned_down", "trec", 0.125)):
        of_task = reached[TASKS.index(task)]
        cost = quantities.value(f"knobs.{name}.{task}.smollm2")
        assert cost.value == pytest.approx(of_task[of_place[place]].mean() - of_task.mean())
    mean = reached.mean(0)
    left = sum(((mean[here] - mean[here].mean()) ** 2).sum() for here in of_place.values())
    explained = quantities.value("knobs.explained.dial.smollm2").value
    assert explained == pytest.approx(100 * (1 - left / ((mean - mean.mean()) ** 2).sum()))
    codes = np.array([list(coded(setting).values()) for setting in settings()], float)
    centred, rest = codes - codes.mean(0), mean - mean.mean()
    slopes = np.linalg.solve(centred.T @ centred, centred.T @ rest)
    explained = quantities.value("knobs.explained.knobs.smollm2").value
    assert explained == pytest.approx(100 * (slopes @ (centred.T @ rest)) / (rest @ rest))


@functools.cache
def best_by_hand() -> dict[str, tuple[dict[str, Any], Fraction, int]]:
    """Of LoRA, CP as today and CP with all knobs: a run at the best setting, its score, and how many settings."""
    groups: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = {"lora": {}, "today": {}, "every": {}}
    for line in read("knobs-smollm2"):
        config = line["config"]
        if config["family"] == "lora":
            key = (config["learning_rate"], config.get("warmup_steps") or 0)
            groups["lora"].setdefault(key, []).append(line)
        else:
            groups["every"].setdefault(values_of(line), []).append(line)
            if values_of(line)[3:] == (1.0, 0, 0.0):
                groups["today"].setdefault(values_of(line), []).append(line)
    found = {}
    for name, tried in groups.items():
        scores = {key: Fraction(sum(map(best, runs)), 500 * len(runs)) for key, runs in tried.items()}
        assert {len(runs) for runs in tried.values()} == {18}
        first, second = sorted(scores.values(), reverse=True)[:2]
        assert first > second, "no tie"
        (key,) = (key for key, score in scores.items() if score == first)
        found[name] = tried[key][0], first, len(tried)
    return found


@pytest.mark.slow
def test_what_dev_chose_by_plain_loops() -> None:
    assert [count for _, _, count in best_by_hand().values()] == [8, 8, 42]
    assert not any(line["diverged_at"] for line in read("knobs-smollm2"))
    chosen = knobs.settings("smollm2")
    for name, (line, score, count) in best_by_hand().items():
        got = chosen[knobs.CANDIDATES[name]]
        config = line["config"]
        assert (got.learning_rate, got.scale, got.warmup_steps or 0, got.size) == (
            config["learning_rate"], config["scale"], config.get("warmup_steps") or 0, config["size"],
        )  # fmt: skip
        assert quantities.value(f"knobs.on_dev.{name}.smollm2").value == pytest.approx(100 * float(score))
        assert quantities.value(f"knobs.tried.{name}.smollm2").value == count
    ends = {}
    for name in ("today", "every"):
        code = coded(values_of(best_by_hand()[name][0]))
        names = ("rate", "scale", "length") if name == "every" else ("rate", "scale")
        ends[name] = [knobs.NAMES[knob] for knob in names if code[knob]]
        assert knobs.at_end("smollm2", name) == ends[name]
    assert ends == {"today": ["scale"], "every": ["rate", "scale", "raw length"]}
    rates = {line["config"]["learning_rate"] for line in read("knobs-smollm2") if line["label"] == "lora"}
    assert min(rates) < best_by_hand()["lora"][0]["config"]["learning_rate"] < max(rates)


def test_the_confirmation_has_what_was_chosen_on_other_draws_and_the_plans_protocol() -> None:
    asked, confirmed, main = study("knobs-smollm2"), study("knobs-confirmed-smollm2"), study("size-tasks-smollm2")
    assert (confirmed.backbone, confirmed.tasks) == (asked.backbone, asked.tasks)
    assert confirmed.draws == tuple(range(211, 227))
    assert not set(confirmed.draws) & set(asked.draws)
    assert confirmed.ladder.head
    assert confirmed.ladder.sizes == {"lora": (1,), "cp": (1, 11), "cp-knobs": (1, 11)}
    assert confirmed.protocol == dataclasses.replace(
        asked.protocol, eval_cap=main.protocol.eval_cap, rest_cap=main.protocol.rest_cap
    )
    projections = load_projections(confirmed.backbone)
    runs = [run for run in confirmed.runs(projections, task="sst2") if run.config.seed == 211]
    assert sorted((run.label, run.config.size) for run in runs) == [
        ("cp", 1), ("cp", 11), ("cp-knobs", 1), ("cp-knobs", 11), ("head", 0), ("lora", 1),
    ]  # fmt: skip
    of_label = {"lora": "lora", "cp": "today", "cp-knobs": "every"}
    chosen = knobs.settings("smollm2")
    for run in runs:
        if run.label == "head":
            continue
        wanted = chosen[knobs.CANDIDATES[of_label[run.label]]]
        same = ("family", "learning_rate", "scale", "warmup_steps", "options")
        assert [getattr(run.config, name) for name in same] == [getattr(wanted, name) for name in same]
        line, _, _ = best_by_hand()[of_label[run.label]]
        if run.config.family == "cp":
            by_hand = (run.config.learning_rate, run.config.scale, run.config.warmup_steps or 0)
            assert by_hand == values_of(line)[:3]
            assert run.config.options["raw_norm"] == values_of(line)[3]
            assert (run.config.options["init_std"] or 0) == values_of(line)[4]
            assert run.config.options["lambda_decay"] == values_of(line)[5]


def test_what_is_at_an_end_of_three_levels() -> None:
    """Of LoRA its rate alone, of CP as today the two knobs that it may choose."""
    assert knobs.at_end("smollm2", "lora") == []
    assert {knobs.title(term) for term in knobs.terms().values()} >= {"rate", "rate²", "rate × raw length", "decay"}
    assert len({knobs.title(term) for term in knobs.terms().values()}) == 24


def test_tables_and_charts_have_all_that_was_planned() -> None:
    assert knobs.rows("smollm2")["mean"].abs().is_monotonic_decreasing
    assert len(knobs.effect_chart("smollm2").to_dict()["layer"]) == 3
    assert len(knobs.beside_rows("smollm2")) == 6
    assert len(knobs.task_rows("smollm2")) == 18
    assert set(knobs.knob_table()["knob"]) == {factor.name for factor in knobs.FACTORS}
    table = knobs.choice_table("smollm2").set_index("")
    assert table.loc["rate"].tolist() == ["0.002", "0.004", "0.008"]
    assert table.loc["raw length"].tolist() == ["–", "1", "2"]
    assert table.loc["start of λ"].tolist() == ["–", "0", "0.05"]
