"""What CP gains from its size: one line of each setting again, from the records' own lines."""

import numpy as np
import pytest
from by_hand import answers, bits, judged, read

from companion import main_study, quantities, when_size_pays
from companion.when_size_pays import ALL, FEW, OVER_TASKS

CP, HEAD = ("cp", 44), ("head", 0)


@pytest.fixture(scope="module")
def gains() -> dict[tuple[str, int], dict[str, float]]:
    found = when_size_pays.gains()
    return {(row["setting"], row["size"]): row for row in found.to_dict("records")}


def test_which_sizes_are_shown(gains: dict[tuple[str, int], dict[str, float]]) -> None:
    expected = {ALL: (1, 11, 44), FEW: (1, 11, 44), OVER_TASKS: (1, 4, 17, 71)}
    assert list(gains) == [(setting, size) for setting, sizes in expected.items() for size in sizes]
    assert gains[ALL, 11]["ranks"] == pytest.approx(11 * 5220 / 57600)
    assert gains[OVER_TASKS, 17]["ranks"] == pytest.approx(17 * 7672 / 136192)
    assert {gains[FEW, size]["ranks"] for size in (1, 11, 44)} == {gains[ALL, size]["ranks"] for size in (1, 11, 44)}


def test_boolq_by_hand(gains: dict[tuple[str, int], dict[str, float]]) -> None:
    """On the items and seeds that both settings have."""

    def right(studies: tuple[str, ...], cell: tuple[str, int]) -> np.ndarray:
        by_seed = {
            line["config"]["seed"]: answers(line["outcome"])
            for line in (line for study in studies for line in read(study))
            if line["config"]["task"] == "boolq"
            and (line["label"], line["config"]["size"]) == cell
            and line["config"]["learning_rate"] in (None, pytest.approx(10 * 2e-4))
        }
        return np.array([by_seed[seed] for seed in range(3)], dtype=float)

    (drawn,) = {line["outcome"]["drawn"] for line in read("smollm2") if line["config"]["task"] == "boolq"}
    asked = np.array(bits(drawn, read("boolq-lifted")[0]["outcome"]["rows"]), dtype=bool)
    papers = ("smollm2", "smollm2-rates")
    few = right(papers, CP) - right(papers, HEAD)
    many = (right(("boolq-lifted",), CP) - right(("boolq-lifted",), HEAD))[:, asked]
    for setting, table in ((FEW, few), (ALL, many)):
        by_hand, row = judged(table.tolist()), gains[setting, 44]
        assert (row["gain"], row["low"], row["high"]) == pytest.approx((by_hand["gap"], *by_hand["interval"]))


def test_over_tasks_it_is_the_main_studys_gain(gains: dict[tuple[str, int], dict[str, float]]) -> None:
    elsewhere = main_study.gain_rows().query("what == 'Mean over tasks' and label == 'cp'").to_dict("records")
    assert [row["size"] for row in elsewhere] == [1, 17]
    for row in elsewhere:
        shown = gains[OVER_TASKS, row["size"]]
        assert shown["gain"] == pytest.approx(100 * row["mean"])
    assert quantities.value("main_study.tasks").value == 15, "as the chart says"


def test_the_chart_says_what_it_shows() -> None:
    spec = when_size_pays.chart().to_dict()
    assert "95 % intervals" in spec["description"]
    (colour,) = {
        str(layer["encoding"]["color"]["scale"]["domain"]) for layer in spec["layer"] if "color" in layer["encoding"]
    }
    assert colour == str([ALL, FEW, OVER_TASKS])
