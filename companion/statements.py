"""The numbers that pages print and the claims that they make about them, read from the pages' text.

A claim is a predicate beside its sentence, {says}`noise.lead.sst2.low > 0 and noise.gain.sst2.high < 2`. It consists
of comparisons, `and`, `or`, `not`, sums and products, `abs`, `min`, `max`, `all` and `any`, over numbers and the names
of quantities. A name means the quantity's value, and may be followed by `.low`, `.high`, `.n` or `.level`. A prefix
that several names share means all of them: `all(noise.lead.low > 0)` claims it for each task.

The README cannot use roles and has both in comments: `<!--q noise.lead.sst2|full-->0.7 points<!--/q-->`, where
`make quantities` renews the text between the comments, and `<!--says noise.lead.sst2.low > 0-->`.
"""

import ast
import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from companion.quantities import PARTS, Quantity
from companion.wording import number
from cpadapt.errors import InputError, did_you_mean

PRINTED = re.compile(r"\{q\}`([^`]+)`|<!--q\s+([^>]+?)\s*-->")
CLAIMED = re.compile(r"\{says\}`([^`]+)`|<!--says\s+(.+?)\s*-->", re.S)
MARKED = re.compile(r"(<!--q\s+([^>]+?)\s*-->).*?(<!--/q-->)", re.S)


def printed(text: str) -> Iterator[tuple[str, str]]:
    """Name and style (see `companion.quantities.Quantity.text`) of each number that a page or the README prints."""
    for found in PRINTED.findall(text):
        name, _, style = "".join(found).partition("|")
        yield name.strip(), style.strip()


def claimed(text: str) -> Iterator[str]:
    """The predicates in a page or the README."""
    for found in CLAIMED.findall(text):
        yield " ".join("".join(found).split())


def renewed(text: str, values: Mapping[str, Quantity]) -> str:
    """The README with its present numbers.

    Raises:
        InputError: it names an unknown quantity, or a part that the quantity does not have.
    """

    def put(match: re.Match[str]) -> str:
        name, _, style = match[2].partition("|")
        if name not in values:
            raise InputError(f"no quantity {name!r}{did_you_mean(name, values)}")
        return f"{match[1]}{values[name].text(style)}{match[3]}"

    return MARKED.sub(put, text)


def named(predicate: str) -> list[str]:
    """The names in a predicate, without parts such as `.low`.

    Raises:
        InputError: the predicate cannot be parsed.
    """
    return [_without_part(name)[0] for name in _names(_parsed(predicate))]


def check(predicate: str, values: Mapping[str, Quantity]) -> None:
    """Check that a claim is true.

    Raises:
        InputError: it is false, cannot be parsed or names an unknown quantity. The message has the numbers.
    """
    tree = _parsed(predicate)
    try:
        holds = _evaluated(tree, values)
    except TypeError as error:
        raise InputError(f"{predicate!r} cannot be judged: {error}") from None
    if not isinstance(holds, bool | np.bool_):
        raise InputError(f"{predicate!r} is {holds}: of several things say all(…) or any(…)")
    if not holds:
        known = {name: _value(name, values) for name in dict.fromkeys(_names(tree))}
        raise InputError(
            f"{predicate!r} is false: {', '.join(f'{name} = {_said(value)}' for name, value in known.items())}"
        )


def _parsed(predicate: str) -> ast.expr:
    try:
        return ast.parse(predicate, mode="eval").body
    except SyntaxError:
        raise InputError(f"{predicate!r} is not a valid predicate") from None


def _names(tree: ast.expr) -> list[str]:
    calls = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
    return [ast.unparse(node) for node in found if node not in calls | inner]


def _without_part(name: str) -> tuple[str, str]:
    whole, _, last = name.rpartition(".")
    return (whole, last) if last in PARTS else (name, "value")


def _value(name: str, values: Mapping[str, Quantity]) -> Any:
    whole, part = _without_part(name)
    if whole in values:
        found = getattr(values[whole], part)
        if found is None:
            raise InputError(f"{whole} has no {part}")
        return found
    several = [_value(f"{other}.{part}", values) for other in values if other.startswith(f"{whole}.")]
    if not several:
        raise InputError(f"no quantity {whole!r}{did_you_mean(whole, values)}")
    return np.array(several)


def _said(found: Any) -> str:
    if isinstance(found, np.ndarray):
        return f"[{', '.join(map(_said, found.tolist()))}]"
    return repr(found) if isinstance(found, str) else number(float(found), 4)


_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_CALLS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs, "min": lambda *values: min(_flat(values)), "max": lambda *values: max(_flat(values)),
    "all": lambda *values: all(_flat(values)), "any": lambda *values: any(_flat(values)),
}  # fmt: skip


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{value} is neither true nor false")
    return bool(value)


def _flat(values: Any) -> list[Any]:
    return [one for each in values for one in np.atleast_1d(each).tolist()]


def _evaluated(node: ast.expr, values: Mapping[str, Quantity]) -> Any:
    """The value of an expression, if it is of a kind that a predicate may contain."""
    inner = functools.partial(_evaluated, values=values)
    match node:
        case ast.Constant(value=int() | float() | str() as constant):
            return constant
        case ast.Name() | ast.Attribute():
            return _value(ast.unparse(node), values)
        case ast.UnaryOp(op=ast.USub()):
            return -inner(node.operand)
        case ast.UnaryOp(op=ast.Not()):
            return not _truth(inner(node.operand))
        case ast.BinOp() if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](inner(node.left), inner(node.right))
        case ast.BoolOp():
            every = [_truth(inner(each)) for each in node.values]
            return all(every) if isinstance(node.op, ast.And) else any(every)
        case ast.Compare() if all(type(op) in _BINARY for op in node.ops):
            sides = [inner(each) for each in (node.left, *node.comparators)]
            steps = zip(sides, node.ops, sides[1:], strict=False)
            return functools.reduce(operator.and_, (_BINARY[type(op)](a, b) for a, op, b in steps))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _CALLS:
            return _CALLS[name](*map(inner, node.args))
    raise InputError(f"{ast.unparse(node)!r} is not allowed in a predicate")
