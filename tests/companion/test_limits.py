"""What the page of the claims says is missing, of the runs."""

from by_hand import read

FIRST = {line["config"]["task"]: line for line in read("smollm2")}


def test_what_is_said() -> None:
    assert FIRST["rte"]["weights"]["kind"] == "package", "dequantized from four bits"
    assert (FIRST["rte"]["config"]["protocol"]["dtype"], FIRST["rte"]["config"]["protocol"]["dropout"]) == (
        "bfloat16",
        0,
    )
    for task in ("sst2", "rte"):
        eval_rows = FIRST[task]["data"]["source"]["eval"]["rows"]
        assert FIRST[task]["data"]["sets"]["eval"]["size"] == eval_rows, "they have no more"
    drawn = [{line["config"]["data_seed"] for line in read(f"smollm2-data-seeds{which}")} for which in ("", "-again")]
    assert drawn == [set(range(1, 31))] * 2, "thirty other draws, with two seeds each"
    assert {line["config"]["task"] for line in read("smollm2-data-seeds-again")} == {"sst2", "rte"}
