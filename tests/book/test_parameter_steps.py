"""Parameter steps: every number again by another way, and every claim."""

import math
from statistics import NormalDist

import pytest
from peft import LoKrConfig, LoraConfig, TinyLoraConfig, UniLoraConfig, get_peft_model
from torch import nn

# Out and in features as the models' papers and configurations give them, a layer: queries, then values.
MODELS = {
    "MiniLM-L6": 6 * [(384, 384), (384, 384)],
    "SmolLM2-135M": 30 * [(576, 576), (192, 576)],
    "OPT-125M": 12 * [(768, 768), (768, 768)],
    "OPT-1.3B": 24 * [(2048, 2048), (2048, 2048)],
}
PARTS = {
    192: (12, 16), 384: (16, 24), 576: (24, 24), 768: (24, 32), 1024: (32, 32), 2048: (32, 64), 4096: (64, 64)
}  # fmt: skip
# The paper's grid on OPT-1.3B.
RANKS = [1, 2, 3, 4, 6, 8]
COMPONENTS = [1, 2, 4, 8, 16, 21, 28, 36, 43, 64, 85, 128, 171]
LORA, CP = 48 * 4096, 48 * 193


def by_peft(config, *sides):
    model = nn.Sequential(*[nn.Linear(n, m, bias=False) for m, n in sides])
    config.target_modules = [str(place) for place in range(len(sides))]
    model = get_peft_model(model, config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def lokr(rank, m, n, **options):
    return by_peft(LoKrConfig(r=rank, alpha=1, decompose_both=True, **options), (m, n))


def cp_step(m, n):
    return sum(PARTS[m]) + sum(PARTS[n]) + 1


def sizes_between(low, high, step=193):
    """Multiples of a step strictly between two numbers."""
    return (high - 1) // step - low // step


def expected_best(points):
    """The expected maximum of standard normal numbers, by their quantiles."""
    parts = 20_000
    quantile = NormalDist().inv_cdf
    return sum(quantile(((k + 0.5) / parts) ** (1 / points)) for k in range(parts)) / parts


@pytest.fixture(scope="module")
def page(chapter):
    return chapter("parameter_steps")


def test_numbers(page):
    ratios = {(m, n): (m + n) / cp_step(m, n) for m, n in
              [(192, 576), (384, 384), (576, 576), (768, 768), (1024, 4096), (2048, 2048), (4096, 4096)]}  # fmt: skip
    gaps = [sizes_between(4096 * rank, 4096 * (rank + 1)) for rank in range(8)]
    whole_lokr = 32 * 32 + 64 * 64
    points = [sum(c * CP <= rank * LORA for c in COMPONENTS) for rank in RANKS]
    expected = {
        "lora_step": 4096,
        "cp_step": 193,
        "first_gap": gaps[0],
        "gap_least": min(gaps),
        "gap_most": max(gaps),
        "shown": 10_000,
        "shown_lora_size": 2,
        "shown_lora_unspent": 10_000 - 2 * 4096,
        "shown_cp_size": 51,
        "shown_cp_unspent": 10_000 - 51 * 193,
        "lora_waste": 4095,
        "cp_waste": 192,
        "lokr_step": 32 + 32 + 64 + 64,
        "lokr_end": whole_lokr,
        "lokr_end_rank": 32,
        "tinylora_step": 1,
        "unilora_step": 1,
        "ratio": 4096 / 193,
        "ratio_least": min(ratios.values()),
        "ratio_most": max(ratios.values()),
        "finest_split_step": 2 * 11 * 2 + 1,
        "coarsest_split_step": 2 * (2 + 1024) + 1,
        "opt_projections": 48,
        "opt_lora_step": LORA,
        "opt_cp_step": CP,
        "opt_lora_mib": 1.5,
        "opt_cp_mib": 2 * 4 * CP / 1024**2,
        "little": 50_000,
        "little_lora_size": 0,
        "little_cp_size": 9,
        "little_cp_spent": 9 * 30 * (97 + 77),
        "uneven_step": 4096,
        "grid_lora": 6,
        "grid_cp": 13,
        "grid_ratio": 13 / 6,
        "grid_cp_first": points[0],
        "grid_cp_last": points[-1],
        "chance_first": expected_best(6),
        "chance_last": expected_best(12) - expected_best(6),
    }
    assert set(page.glued) == set(expected)
    for name, value in expected.items():
        assert page.glued[name] == pytest.approx(value, rel=1e-3 if name.startswith("chance") else 1e-9), name


def test_the_answer(page):
    """As many CP sizes in the second gap as in the first; finer than LoRA, not the finest."""
    assert sizes_between(0, 4096) == sizes_between(4096, 8192)
    assert page.glued["tinylora_step"] < page.glued["lokr_step"] < page.glued["cp_step"] < page.glued["lora_step"]
    assert page.glued["cp_step"] - page.glued["lokr_step"] == 1


def test_the_papers_own_figures_agree(page):
    """Second-hand: 48 projections, 1.50 MiB of Adam's state a rank and 0.071 a component; its counts of scalars."""
    assert page.glued["opt_projections"] == 48
    assert f"{page.glued['opt_lora_mib']:.2f}" == "1.50"
    assert f"{page.glued['opt_cp_mib']:.3f}" == "0.071"
    step = page.glued["opt_cp_step"]
    assert [step * c for c in (21, 28, 43, 64)] == [194544, 259392, 398352, 592896]
    assert [page.glued["opt_lora_step"] * r for r in (1, 6)] == [196608, 1179648]


def test_the_tables(page):
    _, shapes, splits, models, plan, chances = page.tables
    assert len(shapes) == 8
    for name, _, split, of_lora, of_cp, of_lokr, ratio in shapes[1:]:
        m, n = map(int, name.split("×"))
        assert split == " × ".join(f"{a}·{b}" for a, b in (PARTS[m], PARTS[n]))
        assert (of_lora, of_cp) == (f"{m + n:,}", f"{cp_step(m, n)}")
        assert int(of_lokr) == lokr(1, m, n) == cp_step(m, n) - 1
        assert ratio == f"{(m + n) / cp_step(m, n):.1f}"
    for _, split, step in splits[1:]:
        parts = [int(part) for part in split.split("·")]
        assert math.prod(parts) == 2048
        assert int(step) == 2 * sum(parts) + 1
    assert [row[0] for row in models[1:]] == list(MODELS)
    for name, projections, of_lora, of_cp, ratio, lora_mib, cp_mib in models[1:]:
        sides = MODELS[name]
        steps = sum(m + n for m, n in sides), sum(cp_step(m, n) for m, n in sides)
        assert (int(projections), of_lora, of_cp) == (len(sides), f"{steps[0]:,}", f"{steps[1]:,}")
        assert ratio == f"{steps[0] / steps[1]:.1f}"
        assert (lora_mib, cp_mib) == (f"{steps[0] / 2**17:.3f}", f"{steps[1] / 2**17:.4f}")
    assert plan[1:] == [["lora", "0", "0", "57,600", "50,000"], ["cp", "9", "46,980", "5,220", "3,020"]]
    assert [int(row[0]) for row in chances[1:]] == RANKS
    best = {points: expected_best(points) for points in range(1, 13)}
    for rank, of_lora, of_cp, ahead in chances[1:]:
        assert int(of_lora) == sum(r <= int(rank) for r in RANKS)
        assert int(of_cp) == sum(193 * c <= 4096 * int(rank) for c in COMPONENTS)
        assert float(ahead) == pytest.approx(best[int(of_cp)] - best[int(of_lora)], abs=0.006)
    shares = [float(row[-1]) for row in chances[1:]]
    assert shares == sorted(shares, reverse=True)


def test_lokr(page):
    """PEFT's ladder starts with CP's step less one, ends a little above LoRA's first rank; another factor goes on."""
    counts = [lokr(rank, 2048, 2048) for rank in range(1, 41)]
    assert counts[:15] == [192 * rank for rank in range(1, 16)]
    assert counts == sorted(counts)
    assert counts[31:] == [5120] * 9
    assert counts[30] < 5120
    assert 4096 < max(counts) < 2 * 4096
    assert lokr(40, 2048, 2048, decompose_factor=2) > 5120


def test_single_scalars(page):
    rows = page.tables[0][1:]
    three = [(16, 16)] * 3
    for length in (1, 2, 3):
        counts = [
            by_peft(TinyLoraConfig(u=length, weight_tying=1.0), *three),
            by_peft(UniLoraConfig(theta_d_length=length), *three),
        ]
        assert counts == [length, length]
        assert rows[length - 1] == [str(length)] * 3


def test_uneven_ranks(page):
    """A rank on one projection alone costs less than a component on all of OPT-1.3B."""
    two = [(2048, 2048)] * 2
    counts = by_peft(LoraConfig(r=1), *two), by_peft(LoraConfig(r=1, rank_pattern={"0": 2}), *two)
    assert counts == (2 * 4096, 3 * 4096)
    assert page.glued["uneven_step"] < page.glued["opt_cp_step"]


def test_the_ratio_grows_with_the_width():
    for side in (576, 4096):
        step = 4 * math.isqrt(side) + 1
        assert cp_step(side, side) == step
        assert 2 * side / step == pytest.approx(math.sqrt(side) / 2, rel=0.02)
    ratios = [2 * side / cp_step(side, side) for side in (384, 576, 768, 2048, 4096)]
    assert ratios == sorted(ratios)


def test_the_grid():
    """Six of its CP sizes lie below LoRA's first rank; the largest lies a little above LoRA's last."""
    assert sum(c * CP < LORA for c in COMPONENTS) == 6
    assert 8 * LORA < COMPONENTS[-1] * CP < 8.1 * LORA
    assert all(c * CP < 8 * LORA for c in COMPONENTS[:-1])


def test_the_charts(page):
    charts = [
        data
        for cell in page.cells
        for output in cell.get("outputs", ())
        for mime, data in output.get("data", {}).items()
        if "vegalite" in mime
    ]
    assert len(charts) == 3
    _, ladder, grid = charts
    for spec, rows in (
        (ladder, {"LoRA": [4096, 8192, 12288], "CP": [193 * c for c in range(1, 64)],
                  "LoKr": [lokr(rank, 2048, 2048) for rank in range(1, 33)]}),
        (grid, {"LoRA": [LORA * r for r in RANKS], "CP": [CP * c for c in COMPONENTS]}),
    ):  # fmt: skip
        (drawn,) = spec["datasets"].values()
        assert {name: [row["scalars"] for row in drawn if row["family"] == name] for name in rows} == rows
        assert {row["family"] for row in drawn} == set(rows)
