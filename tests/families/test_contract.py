"""What every family promises. A family is tested by standing in `FAMILIES`; further options are a line in `CASES`."""

import ast
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import toy_family
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpadapt.analysis.charts import family_colours, family_name
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, Family, counting, cp, melora
from cpadapt.inputs.backbones.specs import Projection

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    **{name: (module, {}) for name, module in FAMILIES.items()},
    "cp, other splits": (cp, {"tensor_shape": {12: (2, 3, 2), 18: (18,), 7: (1, 7)}}),
    "melora, three minis": (melora, {"minis": 3}),
    "a third": (toy_family, {}),
    "a third, three blocks": (toy_family, {"blocks": 3}),
}
SIDES = [(12, 12), (12, 18), (16, 16), (36, 72), (7, 11), (1, 7), (7, 1), (2, 2), (1, 1)]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any, dict[str, Any]]:
    """A family's name, its module and shape options."""
    module, options = CASES[request.param]
    monkeypatch.setitem(FAMILIES, request.param, module)
    return request.param, module, options


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def accepted(module: Any, options: Mapping[str, Any]) -> list[tuple[int, int]]:
    found = [sides for sides in SIDES if module.accepts(*sides, **options) is None]
    assert found
    return found


def sizes(module: Any, sides: tuple[int, int], options: Mapping[str, Any], most: int = 4) -> list[int]:
    """The smallest size and those above it, up to this many."""
    found = []
    for size in range(first := module.smallest(**options), first + min(most, math.prod(sides))):
        try:
            module.shapes(*sides, size, **options)
        except InputError:  # the family ends below this size
            break
        found.append(size)
    assert found
    return found


def drawn(module: Any, sides: tuple[int, int], size: int, options: Mapping[str, Any], seed: int = 0) -> Any:
    """Scalars of the family's shapes that are all other than at the start."""
    source = generator(seed)
    shapes = module.shapes(*sides, size, **options)
    return {name: torch.randn(shape, generator=source, dtype=torch.float64) for name, shape in shapes.items()}


def test_a_family_offers_all_that_the_protocol_names(case: tuple[str, Any, dict[str, Any]]) -> None:
    _, module, options = case
    assert isinstance(module.TITLE, str)
    assert re.fullmatch(r"#[0-9A-F]{6}", module.COLOUR)
    assert module.LEARNING_RATE > 0
    assert module.SCALE > 0
    assert isinstance(module.SEPARATE_UNITS, bool)
    assert isinstance(module.SAVED_AS_TRAINED, bool)
    assert set(options) <= set(module.SHAPE_OPTIONS)
    kinds = module.SHAPE_OPTIONS, module.INIT_OPTIONS, module.DECAY_OPTIONS
    assert len(set().union(*kinds)) == sum(map(len, kinds)), "an option is of one kind"
    if decayed := set(module.DECAY_OPTIONS.values()):
        assert decayed <= set(module.shapes(*accepted(module, options)[0], module.smallest(**options), **options))
    functions = [name for name in vars(Family) if not name.startswith("_") and callable(vars(Family)[name])]
    assert {"accepts", "smallest", "shapes", "columns", "init", "factors"} == set(functions)
    for name in functions:
        given = inspect.signature(getattr(module, name)).parameters.values()
        keywords = {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
        expected = {**module.SHAPE_OPTIONS, **(module.INIT_OPTIONS if name == "init" else {})}
        assert keywords == expected, f"{name}: every option is a keyword, with the default that is recorded"


def test_titles_and_colours_tell_families_apart() -> None:
    assert len(set(family_colours().values())) == len(FAMILIES) + 1
    assert len({family_name(name) for name in family_colours()}) == len(FAMILIES) + 1


@pytest.mark.parametrize("module", [counting, *dict.fromkeys(module for module, _ in CASES.values())])
def test_nothing_heavy_is_imported_before_something_is_drawn(module: Any) -> None:
    """The command line counts without torch."""
    tree = ast.parse(inspect.getsource(module))
    names = {
        name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    }
    assert not {name for name in names if name and name.partition(".")[0] in ("torch", "jaxtyping", "transformers")}


def test_what_is_drawn_has_the_shapes_that_are_counted(case: tuple[str, Any, dict[str, Any]]) -> None:
    name, module, options = case
    for sides in accepted(module, options):
        for size in sizes(module, sides, options):
            shapes = module.shapes(*sides, size, **options)
            assert all(shape[0] == size for shape in shapes.values())
            params = module.init(generator(), *sides, size, **options)
            assert {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in params.items()} == {
                key: (shape, torch.float32) for key, shape in shapes.items()
            }
            assert list(params) == list(shapes)
            count = counting.count(name, [Projection("", *sides)] * 2, size, options)
            assert count == 2 * sum(tensor.numel() for tensor in params.values())


def test_a_seed_draws_the_same_again_and_another_draws_otherwise(case: tuple[str, Any, dict[str, Any]]) -> None:
    _, module, options = case
    sides = accepted(module, options)[0]
    size = module.smallest(**options)
    one, again, other = (module.init(generator(seed), *sides, size, **options) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_start_is_a_no_op(case: tuple[str, Any, dict[str, Any]]) -> None:
    _, module, options = case
    for sides in accepted(module, options):
        for size in sizes(module, sides, options):
            up, down = module.factors(module.init(generator(), *sides, size, **options), **options)
            assert not (up @ down).any()
            assert up.any() or down.any(), "else it never learns"


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=25)
@given(nth=st.integers(0, 3), leading=st.lists(st.integers(1, 3), max_size=2), place=st.integers(0, len(SIDES) - 1))
def test_pairs_have_their_shapes_and_rank_with_any_leading_axes(
    name: str, nth: int, leading: list[int], place: int
) -> None:
    module, options = CASES[name]
    sides = (found := accepted(module, options))[place % len(found)]
    size = (there_are := sizes(module, sides, options))[nth % len(there_are)]
    many = [drawn(module, sides, size, options, seed) for seed in range(math.prod(leading))]
    stacked = {key: torch.stack([params[key] for params in many]).unflatten(0, leading or [1]) for key in many[0]}
    up, down = module.factors(stacked, **options)
    columns = module.columns(size, **options)
    assert up.shape == (*(leading or [1]), sides[0], columns)
    assert down.shape == (*(leading or [1]), columns, sides[1])
    for alone, up_i, down_i in zip(many, up.flatten(0, -3), down.flatten(0, -3), strict=True):
        up_alone, down_alone = module.factors(alone, **options)
        torch.testing.assert_close(up_i @ down_i, up_alone @ down_alone)
        assert torch.linalg.matrix_rank(up_i @ down_i, rtol=1e-9) <= columns


def test_separate_units_have_equally_many_columns(case: tuple[str, Any, dict[str, Any]]) -> None:
    _, module, options = case
    if module.SEPARATE_UNITS:
        assert [module.columns(k, **options) for k in range(1, 9)] == [
            k * module.columns(1, **options) for k in range(1, 9)
        ]


def test_adapters_of_separate_units_laid_end_to_end_have_their_pairs_end_to_end(
    case: tuple[str, Any, dict[str, Any]],
) -> None:
    """What banks of runs of different sizes rest on. It holds for no other family."""
    _, module, options = case
    for sides in accepted(module, options)[:2]:
        there_are = sizes(module, sides, options)
        adapters = [drawn(module, sides, size, options, size) for size in there_are[::-1]]
        together = {name: torch.cat([params[name] for params in adapters]) for name in adapters[0]}
        up, down = module.factors(together, **options)
        ups, downs = zip(*(module.factors(params, **options) for params in adapters), strict=True)
        alike = up.shape == torch.cat(ups, 1).shape and torch.equal(up, torch.cat(ups, 1))
        if module.SEPARATE_UNITS:
            assert alike
            assert torch.equal(down, torch.cat(downs))
        elif len(there_are) > 1:
            assert not alike


@pytest.mark.slow
def test_every_scalar_that_is_counted_moves_the_update(case: tuple[str, Any, dict[str, Any]]) -> None:
    _, module, options = case
    for sides in accepted(module, options):
        params = drawn(module, sides, module.smallest(**options), options)

        def update(*tensors: Tensor, names: tuple[str, ...] = tuple(params)) -> Tensor:
            up, down = module.factors(dict(zip(names, tensors, strict=True)), **options)
            return up @ down

        for gradient in torch.autograd.functional.jacobian(update, tuple(params.values())):
            assert (gradient.flatten(2).abs().amax((0, 1)) > 1e-12).all(), sides


def test_a_size_below_the_smallest_is_refused(case: tuple[str, Any, dict[str, Any]]) -> None:
    name, module, options = case
    sides = accepted(module, options)[0]
    for size in (module.smallest(**options) - 1, 0, -3):
        with pytest.raises(InputError, match=f"not {size}$"):
            module.shapes(*sides, size, **options)
    cost = counting.count(name, [Projection("", *sides)], module.smallest(**options), options)
    assert counting.step(name, [Projection("", *sides)], options, 0) == cost
    assert counting.largest_size(name, [Projection("", *sides)], cost - 1, options) == 0
    assert counting.largest_size(name, [Projection("", *sides)], cost, options) == module.smallest(**options)


def test_a_refused_projection_is_named_with_the_reason(case: tuple[str, Any, dict[str, Any]]) -> None:
    name, module, options = case
    fits = Projection("", *accepted(module, options)[0])
    for sides in SIDES:
        reason = module.accepts(*sides, **options)
        shown = counting.refusal(name, [fits, Projection("", *sides)], options)
        assert shown == (None if reason is None else f"{sides[0]}x{sides[1]}: {reason}")
        if reason is not None:
            message = re.escape(f"family {name!r} cannot adapt a projection of {shown}")
            with pytest.raises(InputError, match=message):
                counting.count(name, [Projection("", *sides)], module.smallest(**options), options)
            with pytest.raises(InputError, match=message):
                counting.largest_size(name, [Projection("", *sides)], 1, options)
