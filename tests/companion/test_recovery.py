"""The curves of iterative hard thresholding: what is counted, against the file itself, and what is drawn."""

import json

import pytest
from scipy import stats

from companion import PROJECT, recovery
from companion.quantities import updates as quantities
from cpadapt.errors import InputError

RECORD = json.loads((PROJECT / recovery.FILE).read_text(encoding="utf-8"))


def test_all_curves_have_as_many_seeds_and_their_names() -> None:
    assert {len(found["last"]) for found in recovery.curves()} == {RECORD["seeds"]} == {quantities.seeds()}
    assert list(dict.fromkeys(found["setup"] for found in recovery.curves())) == list(recovery.SETUPS)
    for found in recovery.curves():
        assert [len(line) for line in found["band"]] == 3 * [len(found["iterations"])]
        assert all(low <= median <= high for low, median, high in zip(*found["band"], strict=True))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_shares_are_counted_by_hand(share: float) -> None:
    (last,) = (each["last"] for each in RECORD["curves"] if (each["setup"], each["measured"]) == ("entries", share))
    right = len([error for error in last if error < 0.01])
    found, low, high = recovery.recovered_share("entries", 2, share)
    assert found == right / 50
    # Clopper and Pearson's ends: as many or more, and as many or fewer, each happen in 2.5 % of cases.
    assert stats.binom.sf(right - 1, 50, low) == pytest.approx(0.025)
    assert high == 1 or stats.binom.cdf(right, 50, high) == pytest.approx(0.025)


def test_the_first_iteration_that_recovers_the_median_seed() -> None:
    for kind, share in (("measurements", 0.3), ("entries", 0.9)):
        found, at = recovery.curve(kind, 2, share), recovery.iterations_to_recover(kind, 2, share)
        by_iteration = dict(zip(found["iterations"], found["band"][1], strict=True))
        assert by_iteration[at] < 0.01 <= min(error for k, error in by_iteration.items() if k < at)


def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="there are 0 curves"):
        recovery.curve("entries", 2, 0.4)


@pytest.mark.parametrize("setup", recovery.SETUPS)
def test_a_chart_has_a_line_and_a_band_for_each_curve(setup: str) -> None:
    spec = recovery.curve_chart(setup).to_dict()
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "line"]
    assert len(spec["layer"][0]["encoding"]["color"]["scale"]["domain"]) == 4
    assert recovery.SETUPS[setup] in spec["description"]
    assert len(recovery.curve_rows(setup)) == sum(
        len(found["iterations"]) for found in recovery.curves() if found["setup"] == setup
    )


def test_the_table_has_every_curve() -> None:
    table = recovery.recovered_table()
    assert len(table) == len(recovery.curves()) == 16
    assert table.iloc[8].to_list() == ["some entries", 2, "30%", "no", "80", "66 to 90"]
