"""The CP adapter: every number again by another way, and every claim."""

import ast
import copy
import math

import numpy as np
import pytest
import torch
from peft import LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lora import convert_to_lora
from torch import nn

import cpadapt
from cpadapt.families import counting
from cpadapt.inputs.backbones.specs import Projection

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# What rounding may come to, well above what was seen, far below anything else on the page.
FLOAT32, FLOAT64 = 2e-5, 1e-13


@pytest.fixture(scope="module")
def page(chapter):
    return chapter("cp_adapter")


def vectors(sides, components, seed=0):
    """Unit vectors and weights of a CP adapter, drawn by numpy."""
    generator = np.random.default_rng(seed)
    drawn = [generator.standard_normal((components, side)) for side in sides]
    unit = [raw / np.linalg.norm(raw, axis=1, keepdims=True) for raw in drawn]
    return unit, generator.standard_normal(components)


def update(unit, weight):
    """The sum of Kronecker products, component by component."""
    return sum(
        w * np.outer(np.kron(unit[0][s], unit[1][s]), np.kron(unit[2][s], unit[3][s])) for s, w in enumerate(weight)
    )


def moving(build, point, step=1e-6):
    """Directions in which small changes of the scalars move the update, by central differences."""
    columns = []
    for k in range(len(point)):
        shift = np.zeros_like(point)
        shift[k] = step
        columns.append((build(point + shift) - build(point - shift)).ravel() / (2 * step))
    return int(np.linalg.matrix_rank(np.stack(columns), tol=1e-6))


def cp_from_flat(components, sides=(4, 6, 4, 6)):
    def build(flat):
        raw = np.split(flat[:-components], np.cumsum([components * side for side in sides])[:-1])
        unit = [part.reshape(components, -1) for part in raw]
        return update([u / np.linalg.norm(u, axis=1, keepdims=True) for u in unit], flat[-components:])

    return build


@pytest.fixture(scope="module")
def measured():
    """The page's model again: how far apart the ways of using its adapter are, by hooks and matrices alone."""
    backbone = cpadapt.load_backbone("tiny")
    base = copy.deepcopy(backbone.model)
    text = backbone.tokenizer("Does it merge? It does.", return_tensors="pt")
    torch.manual_seed(0)
    model = get_peft_model(backbone.model, cpadapt.CPConfig(num_components=4, init="normal")).eval()

    def outputs(change):
        """The base model's outputs with other weights on its projections."""
        changed = copy.deepcopy(base)
        for projection in backbone.projections:
            layer = model.base_model.model.get_submodule(projection.name)
            weight = changed.get_submodule(projection.name).weight
            weight.data += change(layer.get_delta_weight("default").detach())
        with torch.no_grad():
            return changed(**text).last_hidden_state

    def truncated(keep):
        def change(delta):
            left, values, right = torch.linalg.svd(delta)
            kept = keep(values)
            return (left[:, :kept] * values[:kept]) @ right[:kept]

        return change

    def share(values):
        explained = (values**2).cumsum(0) / (values**2).sum()
        return int((explained < 0.99).sum()) + 1

    with torch.no_grad():
        adapted = model(**text).last_hidden_state
        exported = cpadapt.to_lora(model)
        as_lora = exported(**text).last_hidden_state
    ways = {
        "merge_difference": outputs(lambda delta: delta),
        "effect": outputs(torch.zeros_like),
        "svd_same": outputs(truncated(lambda values: 4)),
        "svd_less": outputs(truncated(lambda values: 3)),
        "svd_share": outputs(truncated(share)),
        "export_difference": as_lora,
    }
    return {name: (other - adapted).abs().max().item() for name, other in ways.items()} | {
        "projections": len(backbone.projections),
        "config": exported.peft_config["default"],
    }


def test_numbers(page, measured):
    glued = page.glued
    exact = {
        "step": 32 + 64 + 32 + 64 + 1,
        "worked_up_0": 32,
        "worked_up_1": 64,
        "worked_down_0": 32,
        "worked_down_1": 64,
        "worked_weight": 1,
        "lora_step": 4096,
        "entries": 4_194_304,
        "stored_one": 4 + 6 + 4 + 6 + 1,
        "free_one": 17,
        "stored_two": 42,
        "free_two": 34,
        "free_step": 193 - 4,
        "lora_free": 4095,
        "small_needed": 4 * 4,
        "needed": 32 * 32,
        "needed_scalars": 1024 * 193,
        "steps": 5000,
        "rate": 2e-4,
        "scale": 8.0,
        "norm_ratio": 16.0,
        "length_ratio": 16.0,
        "model_projections": measured["projections"],
        "export_rank": 4,
        "export_difference": 0.0,
        "svd_share_of": 0.99,
        "lokr_step": 192,
        "lokr_rank_2": 4,
        "lokr_rank_3": 9,
    }
    # The sum of the linearly decaying rates; Adam's step is a little longer or shorter than its rate.
    reach = sum(2e-4 * (1 - step / 5000) for step in range(5000))
    close = {
        "reach": (reach, 1e-3),
        "scaled_reach": (8 * reach, 1e-3),
        "angle_ratio": (16.0, 1e-3),
        "effect": (measured["effect"], 1e-4),
        "svd_less": (measured["svd_less"], 1e-3),
        "svd_share": (measured["svd_share"], 1e-3),
    }
    rounding = {
        "einsum_difference": FLOAT64,
        "merge_difference": FLOAT32,
        "svd_same": FLOAT32,
        "rounding_32": FLOAT32,
        "rounding_64": FLOAT64,
        "lokr_difference": FLOAT64,
    }
    assert set(glued) == {*exact, *close, *rounding}
    for name, value in exact.items():
        assert glued[name] == pytest.approx(value, rel=1e-9, abs=0), name
    for name, (value, tolerance) in close.items():
        assert glued[name] == pytest.approx(value, rel=tolerance), name
    for name, most in rounding.items():
        assert 0 <= glued[name] < most, name
        assert 0 <= measured.get(name, 0) < most, name


def test_the_worked_step_adds_up(page):
    glued = page.glued
    assert sum(value for name, value in glued.items() if name.startswith("worked_")) == glued["step"]


def test_the_update_is_the_sum_of_outer_products():
    """The product of the two factors is the sum over four indices, and of rank c."""
    params = cpadapt.families.cp.init(torch.Generator().manual_seed(3), 24, 24, 5, init="normal")
    names = ("up_0", "up_1", "down_0", "down_1")
    raw = {name: params[name].double().numpy() for name in (*names, "weight")}
    unit = [raw[name] / np.linalg.norm(raw[name], axis=1, keepdims=True) for name in names]
    up, down = cpadapt.families.cp.factors({name: torch.from_numpy(value) for name, value in raw.items()})
    np.testing.assert_allclose((up @ down).numpy(), update(unit, raw["weight"]), atol=1e-15)
    assert np.linalg.matrix_rank(update(unit, raw["weight"])) == 5


@pytest.mark.parametrize("components", [1, 2, 3])
def test_degrees_of_freedom(page, components):
    unit, weight = vectors((4, 6, 4, 6), components)
    point = np.concatenate([part.ravel() for part in unit] + [weight])
    free = moving(cp_from_flat(components), point)
    assert (len(point), free) == (components * 21, components * 17)
    counted = {row[0]: (int(row[1]), int(row[2])) for row in page.tables[1][1:]}
    assert counted[f"CP, c = {components}"] == (len(point), free)
    for rank in (1, 2):
        assert counted[f"LoRA, r = {rank}"] == (48 * rank, rank * (48 - rank))


def test_degrees_of_freedom_of_lora():
    point = np.random.default_rng(0).standard_normal(2 * 48)
    assert moving(lambda flat: flat[:48].reshape(24, 2) @ flat[48:].reshape(2, 24), point) == 2 * (48 - 2)


def test_what_a_component_reaches(page):
    """Rank one of LoRA takes as many components as its two sides' ranks multiply to, and these suffice."""
    x, y = np.random.default_rng(0).standard_normal((2, 24))
    left, right = (np.linalg.svd(side.reshape(4, 6), full_matrices=False) for side in (x, y))
    pairs = [(a, b) for a in range(4) for b in range(4)]
    parts = [
        left.S[a] * right.S[b] * np.outer(np.kron(left.U[:, a], left.Vh[a]), np.kron(right.U[:, b], right.Vh[b]))
        for a, b in pairs
    ]
    assert len(parts) == page.glued["small_needed"]
    np.testing.assert_allclose(sum(parts), np.outer(x, y), atol=1e-12)

    def needed(matrix):
        return np.linalg.matrix_rank(matrix.reshape(4, 6, 4, 6).transpose(0, 2, 1, 3).reshape(16, 36))

    rows = [tuple(map(int, row[1:])) for row in page.tables[2][1:]]
    assert rows == [(1, 1), (2, 2), (1, 16)]
    assert [needed(update(*vectors((4, 6, 4, 6), c))) for c in (1, 2)] == [1, 2]
    assert needed(np.outer(x, y)) == 16
    # What it would cost is more than LoRA's rank.
    assert page.glued["needed_scalars"] > page.glued["lora_step"]


def test_only_the_weights_learn_first(page):
    rows = {name: float(length) for name, length in page.tables[3][1:]}
    weight = rows.pop("weight")
    assert weight > 0.1
    assert set(rows) == {"up_0", "up_1", "down_0", "down_1"}
    assert all(length == 0 for length in rows.values())


def test_a_raw_vectors_gradient():
    """Orthogonal to the vector, and as the formula says."""
    generator = torch.Generator().manual_seed(0)
    raw, pull = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    for length in (0.5, 3.0):
        leaf = (length * raw).requires_grad_()
        (pull @ (leaf / leaf.norm())).backward()
        unit = raw / raw.norm()
        torch.testing.assert_close(leaf.grad, (pull - (unit @ pull) * unit) / (length * raw.norm()))
        assert abs(leaf.grad @ leaf) < 1e-12


def test_lengths(page):
    rows = [[float(entry) for entry in row] for row in page.tables[4][1:]]
    lengths, gradients, cosines, angles = zip(*rows, strict=True)
    assert [n / lengths[0] for n in lengths] == [1, 2, 4, 8, 16]
    assert all(abs(cosine) < 1e-12 for cosine in cosines)
    for of_row in (gradients, angles):
        assert of_row == tuple(sorted(of_row, reverse=True))
        assert [of_row[0] / value for value in of_row] == pytest.approx([1, 2, 4, 8, 16], rel=0.05)


def test_a_component_is_as_large_as_its_weight():
    unit, weight = vectors((4, 6, 4, 6), 1)
    component = update(unit, weight)
    assert np.linalg.norm(component) == pytest.approx(abs(weight[0]))
    assert np.linalg.norm(component, 2) == pytest.approx(abs(weight[0]))


def test_adams_reach_does_not_depend_on_the_gradient(page):
    texts = [
        o["data"]["text/plain"] for c in page.cells for o in c.get("outputs", ()) if "text/plain" in o.get("data", {})
    ]
    (reached,) = [ast.literal_eval(text) for text in texts if text.startswith("{0.01:")]
    assert set(reached) == {0.01, 100.0}
    assert reached[0.01] == pytest.approx(reached[100.0], rel=1e-4)


def test_merging_and_export(page, measured):
    """Merged and exported without loss, while a lower rank or a share of the values loses."""
    assert torch.finfo(torch.float32).eps < page.glued["effect"]
    assert measured["export_difference"] == 0
    assert isinstance(measured["config"], LoraConfig)
    assert measured["config"].r == 4
    for name in ("svd_less", "svd_share"):
        assert page.glued[name] > 1000 * FLOAT32
    assert page.glued["rounding_64"] < 1e-6 * page.glued["rounding_32"]
    square = [Projection("", 2048, 2048)]
    assert counting.step("lora", square) > counting.step("cp", square)


def test_pefts_conversion_builds_the_whole_update(monkeypatch):
    seen = []
    decompose = torch.linalg.svd

    def spy(matrix, **options):
        seen.append(tuple(matrix.shape))
        return decompose(matrix, **options)

    model = get_peft_model(
        nn.Sequential(nn.Linear(24, 16)), cpadapt.CPConfig(num_components=2, init="normal", target_modules=["0"])
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", spy)
        convert_to_lora(model, rank=2)
        assert seen == [(16, 24)]
        cpadapt.to_lora(model)
        assert seen == [(16, 24)]


def test_lokr(page):
    """Rank one is one CP component; rank r has matrix rank r², and one scalar less a step."""
    unit, weight = vectors((16, 24, 16, 24), 1)
    one = np.kron(np.outer(weight * unit[0][0], unit[2][0]), np.outer(unit[1][0], unit[3][0]))
    np.testing.assert_allclose(one, update(unit, weight), atol=1e-15)
    rows = [[int(entry) for entry in row] for row in page.tables[-1][1:]]
    assert [row[0] for row in rows] == [1, 2, 3]
    for size, lokr_scalars, lokr_rank, cp_scalars, cp_rank in rows:
        torch.manual_seed(size)
        config = LoKrConfig(r=size, alpha=1, decompose_both=True, init_weights=False, target_modules=["0"])
        layer = get_peft_model(nn.Sequential(nn.Linear(384, 384, bias=False)), config).base_model.model[0]
        scalars = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        matrix = layer.double().get_delta_weight("default").detach().numpy()
        assert (lokr_scalars, lokr_rank) == (scalars, np.linalg.matrix_rank(matrix)) == (80 * size, size**2)
        assert (cp_scalars, cp_rank) == (81 * size, size)
    assert page.glued["step"] - page.glued["lokr_step"] == 1
    assert math.isqrt(page.glued["lokr_rank_3"]) == 3


def test_the_charts(page):
    charts = [
        data
        for cell in page.cells
        for output in cell.get("outputs", ())
        for mime, data in output.get("data", {}).items()
        if "vegalite" in mime
    ]
    strips, blocks = charts
    (cells,) = strips["datasets"].values()
    rows = {}
    for cell in cells:
        rows.setdefault(cell["vector"], []).append(cell["value"])
    stretched, repeated, product = rows.values()
    assert stretched == [stretched[6 * (k // 6)] for k in range(24)]
    assert repeated == repeated[:6] * 4
    raw = np.array(stretched) * repeated
    np.testing.assert_allclose(product, raw / np.abs(raw).max(), atol=0.01)
    titles = [row["title"] for rows in blocks["datasets"].values() for row in rows if "title" in row]
    assert titles == ["c = 1, rank 1", "c = 2, rank 2", "c = 8, rank 8"]
    (first,) = [rows for rows in blocks["datasets"].values() if "v" in rows[0]]
    assert len(first) == 3 * 24 * 24
    matrix = np.array([row["v"] for row in first[: 24 * 24]]).reshape(4, 6, 4, 6).transpose(0, 2, 1, 3)
    # Every block is one pattern with a factor of its own.
    assert np.linalg.svd(matrix.reshape(16, 36), compute_uv=False)[1] < 0.1
