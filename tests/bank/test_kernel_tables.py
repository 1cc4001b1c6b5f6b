"""The tables in the kernels' module texts give the sizes that the kernels run with."""

import re
from types import ModuleType

from cpadapt.bank.kernels import attention, lowrank


def table(module: ModuleType, head: str) -> dict[str, list[str]]:
    """The cells of each row by the name in the first one, of the table whose head begins so."""
    (body,) = re.findall(rf"^=[= ]+\n{head} [^\n]*\n=[= ]+\n(.*?)^=", module.__doc__ or "", re.M | re.S)
    rows = [re.split(r"\s{2,}", line.strip()) for line in body.splitlines()]
    return {name.strip("`"): cells for name, *cells in rows}


def test_the_tiles_of_the_low_rank_products() -> None:
    components = {"PAIR": f"{lowrank.FEWEST} to {lowrank.MOST}", "MATRICES": str(lowrank.FEWEST)}
    assert table(lowrank, "tile") == {
        name: [str(tile.rows), str(tile.features), components[name], str(tile.warps), str(tile.stages)]
        for name, tile in (("PAIR", lowrank.PAIR), ("MATRICES", lowrank.MATRICES))
    }


def test_the_launches_of_attention() -> None:
    assert table(attention, "launch") == {
        f"{name}[{i}]": [", ".join(map(str, powers(launch.first, launch.last))), str(launch.warps), str(launch.stages)]
        for name in ("FORWARD", "BACKWARD")
        for i, launch in enumerate(getattr(attention, name))
    }
    for launches in (attention.FORWARD, attention.BACKWARD):
        tiles = [tile for launch in launches for tile in powers(launch.first, launch.last)]
        assert tiles == powers(attention.SMALLEST, attention.SHORT)


def powers(first: int, last: int) -> list[int]:
    return [2**k for k in range(first.bit_length() - 1, last.bit_length())]


def test_the_blocks_of_attention() -> None:
    assert table(attention, "blocks") == {
        name: [str(number) for number in getattr(attention, name)]
        for name in ("FORWARD_BLOCKS", "QUERY_BLOCKS", "KEY_BLOCKS")
    }
