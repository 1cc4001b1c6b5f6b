"""What pages say of numbers, read as it is written: which they print, and what they claim of them.

A claim is a predicate beside the sentence, {says}`noise.lead.sst2.low > 0 and noise.gain.sst2.high < 2`: comparisons,
`and`, `or`, `not`, sums and products, `abs`, `min`, `max`, `all` and `any`, over numbers and the names of quantities.
A name is the quantity's value; behind it may stand `.low`, `.high`, `.n` or `.level`. The beginning that several names
share stands for all of them: `all(noise.lead.low > 0)` says it of each task.

The README, which no role reaches, has both in comments: `<!--q noise.lead.sst2|full-->0.7 points<!--/q-->`, of which
`make quantities` renews what is between, and `<!--says noise.lead.sst2.low > 0-->`.
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
    """Name and style (`companion.quantities.Quantity.text`) of each number that a page or the README prints."""
    for found in PRINTED.findall(text):
        name, _, style = "".join(found).partition("|")
        yield name.strip(), style.strip()


def claimed(text: str) -> Iterator[str]:
    """The predicates that a page or the README has."""
    for found in CLAIMED.findall(text):
        yield " ".join("".join(found).split())


def renewed(text: str, values: Mapping[str, Quantity]) -> str:
    """The README with its numbers as they are now.

    Raises:
        InputError: it names an unknown quantity, or asks for what it does not have.
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
        InputError: it cannot be read.
    """
    return [_without_part(name)[0] for name in _names(_parsed(predicate))]


def check(predicate: str, values: Mapping[str, Quantity]) -> None:
    """Nothing where a claim is true.

    Raises:
        InputError: it is false, cannot be read or names no quantity; with the numbers.
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
            f"{predicate!r} is not so: {', '.join(f'{name} = {_said(value)}' for name, value in known.items())}"
        )


def _parsed(predicate: str) -> ast.expr:
    try:
        return ast.parse(predicate, mode="eval").body
    except SyntaxError:
        raise InputError(f"{predicate!r} is no predicate") from None


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
    """The value of an expression of those kinds that a predicate may have; nothing else is looked at."""
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
    raise InputError(f"{ast.unparse(node)!r} is nothing that a predicate may have")
