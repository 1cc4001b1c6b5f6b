"""The measurements' scripts: the peer does a bank's work, many peers begin together, and results say what they are."""

import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bank_times
import cpu_bank
import frozen_backbone
import measured
import numpy as np
import paper_grid
import peer
import peers_at_once
import pytest
import repeat
import runs_per_hour
import shapes
import torch
import writers
from transformers import OPTConfig

from cpadapt.bank.bank import Bank
from cpadapt.bank.packing import pack
from cpadapt.bank.trainer import Result, Trainer
from cpadapt.errors import InputError
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

pytestmark = pytest.mark.slow

TASK = "toy-entailment"
STEPS = 2 * peer.BLOCK
PROTOCOL = Protocol(
    steps=STEPS, eval_every=peer.BLOCK, batch_size=4, train_cap=20, dev_cap=16, eval_cap=24, clip=0.5,
    weight_decay=0.01, warmup_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> TaskData:
    return load_task(load_spec(TASK), caps=PROTOCOL.caps)


def lora(backbone: str, rank: int = 2, **changes: Any) -> RunConfig:
    return RunConfig(
        **{
            "backbone": backbone, "task": TASK, "family": "lora", "size": rank, "seed": 1, "data_seed": 0,
            "protocol": PROTOCOL, "learning_rate": 1e-2, "scale": 4.0, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "tiny-encoder"])
@pytest.mark.parametrize("precision", peer.PRECISIONS)
@pytest.mark.long
def test_the_peer_does_the_work_of_a_run_in_a_bank(name: str, precision: peer.Precision, data: TaskData) -> None:
    backbone = load_backbone(name)
    run = lora(name)
    result = next(r for r in Trainer(backbone, [run, lora(name, 3)], {0: data}).train() if r.config.size == 2)
    times = peer.run_peer(
        backbone, run, data, steps=peer.BLOCK, warmup=peer.BLOCK, eval_batch_size=6, precision=precision
    )
    judged = result.evaluations[-1]
    assert judged.step == STEPS
    assert times.dev_loss == pytest.approx(judged.dev_loss, abs=1e-5)
    assert times.dev_accuracy == pytest.approx(judged.dev_accuracy)


def test_the_peer_leaves_the_backbone_as_it_was_and_tells_what_it_timed(data: TaskData) -> None:
    backbone = load_backbone("tiny")
    before = dict(backbone.model.state_dict())
    gates: list[str] = []
    times = peer.run_peer(
        backbone, lora("tiny"), data, steps=2 * peer.BLOCK, warmup=3, evaluations=2, gate=gates.append
    )
    assert gates == list(peer.GATES)
    assert (times.step.repeats, times.dev.repeats, times.eval.repeats) == (2, 2, 2)
    assert 0 < times.real_tokens < times.padded_tokens
    assert times.startup_seconds > 0
    assert times.peak_memory_bytes is None
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_the_peer_takes_lora_runs_and_whole_blocks(data: TaskData) -> None:
    backbone = load_backbone("tiny")
    with pytest.raises(InputError, match="LoRA runs, not 'cp'"):
        peer.run_peer(backbone, lora("tiny", family="cp"), data, steps=peer.BLOCK)
    with pytest.raises(InputError, match="not 7"):
        peer.run_peer(backbone, lora("tiny"), data, steps=7)


def test_the_order_is_the_banks(data: TaskData) -> None:
    run = lora("tiny")
    trainer = Trainer(load_backbone("tiny"), [run], {0: data})
    order = peer.example_order(run, len(data.train), STEPS)
    assert order.shape == (STEPS, PROTOCOL.batch_size)
    for step in range(STEPS):
        np.testing.assert_array_equal(order[step], trainer._batch(run, step))


def work(data: TaskData, **changes: Any) -> peers_at_once.Work:
    run = lora("tiny")
    made = peers_at_once.Work(run, data, "float32", steps=peer.BLOCK, warmup=1, eval_batch_size=16)
    return dataclasses.replace(made, **changes)


@pytest.mark.long
def test_peers_at_once(data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    # The children share two cores here.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with peers_at_once.Peers(2, "cpu") as peers:
        alone = peers.measure(1, work(data), "plain")
        first, second = peers._processes
        both = peers.measure(2, work(data), "plain")
        assert peers._processes == [first, second]
        # Another seed, so another run.
        assert both.times[0].dev_loss != both.times[1].dev_loss
        assert both.times[0].dev_loss == alone.times[0].dev_loss
        for got in (alone, both):
            assert len(got.times) == got.peers
            assert got.train_seconds >= max(t.step.min for t in got.times) * peer.BLOCK
            assert got.dev_seconds >= max(t.dev.min for t in got.times)
            assert got.eval_seconds >= max(t.eval.min for t in got.times)
        second.kill()
        with pytest.raises(peers_at_once.PeerFailed, match=r"peer 1 of 2 ended before 'train', exit code -9"):
            peers.measure(2, work(data), "plain")
        assert not peers._processes


def test_a_peer_that_fails_says_why(data: TaskData) -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send("cpu")
    ours.send(("no-such/folder/", "float32"))
    peers_at_once._peer(theirs, 0)
    peers = peers_at_once.Peers(1, "cpu")
    peers._connections = [ours]
    peers._gather(1, "started")
    with pytest.raises(peers_at_once.PeerFailed, match=r"peer 0 of 1 failed before 'loaded': InputError: no backbone"):
        peers._gather(1, "loaded")


def test_a_bank_is_timed_from_its_second_block_on(data: TaskData) -> None:
    backbone = load_backbone("tiny")
    runs = bank_times.study_runs("tiny", TASK, PROTOCOL, 3)
    times = bank_times.run_bank(backbone, runs, data)
    assert (times.runs, times.block_steps, times.diverged) == (3, peer.BLOCK, 0)
    assert (times.step.repeats, times.dev.repeats) == (1, 1)
    assert min(times.step.min, times.dev.min, times.eval_seconds) > 0
    single = dataclasses.replace(PROTOCOL, eval_every=STEPS)
    with pytest.raises(InputError, match="two blocks"):
        bank_times.run_bank(backbone, bank_times.study_runs("tiny", TASK, single, 1), data)


def test_start_up_is_what_the_first_block_took_longer(data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    train = bank_times.Watched.train

    def with_a_slow_start(trainer: bank_times.Watched) -> list[Result]:
        results = train(trainer)
        assert len(trainer.marks) == 2
        trainer.marks[:] = [(9.0, 3.0), (11.0, 3.5)]
        return results

    monkeypatch.setattr(bank_times.Watched, "train", with_a_slow_start)
    times = bank_times.run_bank(load_backbone("tiny"), bank_times.study_runs("tiny", TASK, PROTOCOL, 3), data)
    assert times.startup_seconds == pytest.approx((9.0 - 2.0) + (3.0 - 0.5))


def test_a_bank_is_a_mix_like_a_studys() -> None:
    runs = bank_times.study_runs("tiny", TASK, PROTOCOL, 64)
    assert len({run.config_id for run in runs}) == 64
    assert {run.family for run in runs[:19]} == {"head", "lora", "cp"}
    assert [run.seed for run in (runs[18], runs[19], runs[63])] == [0, 1, 3]


def test_runs_per_hour() -> None:
    paper = Protocol()
    # 5000 steps, 5 evaluations on dev, one on eval.
    assert measured.run_seconds(0.1, 2.0, 4.0, paper) == pytest.approx(500 + 10 + 4)
    assert measured.run_seconds(0.1, 2.0, 4.0, paper, startup=6.0) == pytest.approx(520)
    assert measured.runs_per_hour(0.1, 2.0, 4.0, paper) == pytest.approx(3600 / 514)
    # Eight at once, each five times as slow, are 1.6 times as many.
    assert measured.runs_per_hour(0.5 / 8, 10.0 / 8, 20.0 / 8, paper) == pytest.approx(1.6 * 3600 / 514)


def test_timed() -> None:
    assert measured.Timed.of([3.0, 1.0, 2.0]) == measured.Timed(2.0, 1.0, 3.0, 3, "s")
    assert measured.Timed.of([4.0, 1.0]).median == 2.5
    calls: list[float] = []

    def nap() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.01)

    timed = measured.time_calls(nap, torch.device("cpu"), repeats=3, calls=2, warmup=1)
    assert len(calls) == 7
    assert (timed.repeats, timed.unit) == (3, "s")
    assert 0.01 <= timed.min <= timed.median <= timed.max < 1


def test_a_report_says_what_it_was_measured_with_and_keeps_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measured.Report(tmp_path / "new" / "some.json", "How long?", torch.device("cpu"), {"steps": 3})
    report.add("nap", step=measured.Timed.of([1.0]))
    with report.phase("a phase that fails"):
        raise ValueError("no")
    report.add("after it", seconds=2.0)
    assert report.failed
    text = report.path.read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert set(content) == {"question", "date", "device", "versions", "settings", "rows"}
    assert content["rows"] == [
        {"what": "nap", "step": {"median": 1.0, "min": 1.0, "max": 1.0, "repeats": 1, "unit": "s"}},
        {"what": "a phase that fails", "error": "ValueError: no"},
        {"what": "after it", "seconds": 2.0},
    ]
    assert {"kind", "cpu", "cores", "torch_threads"} == set(content["device"])
    versions = content["versions"]
    assert {"cpadapt", "python", "packages", "cuda", "git_commit", "git_clean"} == set(versions)
    assert {"torch", "transformers", "peft", "accelerate"} <= set(versions["packages"])
    assert "a phase that fails" in capsys.readouterr().out


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The paper's protocol, for a machine that has no time."""

    def few(**changes: Any) -> Protocol:
        return dataclasses.replace(PROTOCOL, **changes)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for script in (runs_per_hour, cpu_bank):
        monkeypatch.setattr(script, "Protocol", few)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Saturating:
    """Peers that together are never faster than two of them, and of which five do not fit."""

    def __init__(self, most: int, device: str) -> None:
        self.asked: list[tuple[int, peer.Precision]] = []

    def __enter__(self) -> "Saturating":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def measure(self, peers: int, work: peers_at_once.Work, precision: peer.Precision) -> peers_at_once.Round:
        self.asked.append((peers, precision))
        if peers == 5:
            raise peers_at_once.PeerFailed("out of memory")
        one = measured.Timed.of([0.1])
        step = max(0.1, 0.05 * peers) * (2 if precision == "autocast" else 1) * (1.5 if peers > 5 else 1)
        times = peer.PeerTimes(1.0, measured.Timed.of([step]), one, one, 50.0, 60.0, 0.7, 0.5, None)
        return peers_at_once.Round(peers, step * work.steps, step * 2, step * 3, [times] * peers)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("counts", "asked", "stopped"),
    [([1, 2, 4, 8, 16], [2, 4, 8], False), ([1, 2, 5, 6], [2, 5], True)],
    ids=["slower", "out of memory"],
)
def test_more_peers_are_tried_until_they_no_longer_pay(
    counts: list[int], asked: list[int], stopped: bool, data: TaskData, tmp_path: Path
) -> None:
    peers = Saturating(max(counts), "cpu")
    report = measured.Report(tmp_path / "peers.json", "How many?", torch.device("cpu"), {})
    runs_per_hour.sweep(report, peers, work(data, dtype="bfloat16"), counts)
    assert peers.asked == [(1, "autocast"), (1, "plain"), *((count, "plain") for count in asked)]
    assert not report.failed
    last = report.rows[-1]
    assert last.get("stopped") == ("out of memory" if stopped else None)
    two = report.rows[2]
    assert two["a_run"]["step_seconds"] == pytest.approx(0.05)
    assert two["runs_per_hour"] == pytest.approx(2 * report.rows[1]["runs_per_hour"])


@pytest.mark.usefixtures("small")
def test_the_script_of_runs_per_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_per_hour, "Peers", Saturating)
    asked = {
        "backbone": "tiny", "task": [TASK], "data_dir": None, "runs": 3, "batch_size": [4, 2], "steps": 2, "blocks": 3,
        "peers": "1,2", "eval_batch_size": 8, "dtype": "auto", "results": tmp_path,
    }  # fmt: skip
    with pytest.raises(runs_per_hour.typer.BadParameter, match="blocks of 5, not 7"):
        runs_per_hour.main(peer_steps=7, **asked)
    with pytest.raises(runs_per_hour.typer.Exit) as ended:
        runs_per_hour.main(peer_steps=5, **asked)
    assert not ended.value.exit_code
    assert len(list(tmp_path.iterdir())) == 2
    rows = json.loads((tmp_path / f"runs-per-hour-tiny-{TASK}-b4.json").read_text())["rows"]
    assert [(row["what"], row.get("peers")) for row in rows] == [("peers", 1), ("peers", 2), ("bank", None)]
    for row in rows:
        share = row["a_run"]
        expected = measured.runs_per_hour(share["step_seconds"], share["dev_seconds"], share["eval_seconds"], PROTOCOL)
        assert row["runs_per_hour"] == pytest.approx(expected)
    bank = rows[-1]
    assert bank["runs_per_hour_with_startup"] <= bank["runs_per_hour"]
    trainer = Trainer(load_backbone("tiny"), [lora("tiny")], {0: load_task(load_spec(TASK), caps=(20, 16, 24))})
    average = np.diff(trainer.pools["train"].offsets).mean()
    assert bank["real_tokens"] == pytest.approx(3 * 4 * average, rel=0.2)


@pytest.mark.usefixtures("small")
@pytest.mark.long
def test_the_script_of_the_bank_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(cpu_bank.typer.Exit) as ended:
        cpu_bank.main(
            data_dir=None, backbone="tiny-encoder", task=TASK, batch_size=4, steps=5, rounds=2, threads=1,
            results=tmp_path,
        )  # fmt: skip
    assert not ended.value.exit_code
    rows = json.loads((tmp_path / "cpu-bank.json").read_text())["rows"]
    turn = [("bank", None), *(("peer", rank) for rank in (1, 2, 4, 8))]
    assert [(row["what"], row.get("rank")) for row in rows] == 2 * turn
    assert [row["turn"] for row in rows] == [0] * 5 + [1] * 5


@pytest.mark.long
def test_the_script_of_several_writers(tmp_path: Path) -> None:
    with pytest.raises(writers.typer.Exit) as ended:
        writers.main(
            backbone="tiny", task=TASK, seeds=2, steps=4, count=[2], rounds=1, results=tmp_path
        )  # fmt: skip
    assert not ended.value.exit_code
    (row,) = json.loads((tmp_path / "writers.json").read_text())["rows"]
    assert (row["processes"], row["asked"], row["runs"], row["doubled"]) == (2, 8, 8, 0)
    assert sum(row["runs_by_process"]) == 8
    assert sum(row["cpu_seconds_by_process"]) > 0
    assert row["seconds"] > 0


@pytest.mark.long
def test_the_script_of_banks_again_and_of_other_banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeat, "SUMS", (sums := [repeat.EXACT, f"{repeat.BY_RUN}, {repeat.ONE_LENGTH}"]))
    with pytest.raises(repeat.typer.Exit) as ended:
        repeat.main(
            backbone="tiny", task=TASK, data_dir=None, runs=4, others=[4], steps=4, turns=1, batch_size=4,
            dtype=None, threads=1, results=tmp_path,
        )  # fmt: skip
    assert not ended.value.exit_code
    rows = json.loads((tmp_path / f"repeat-tiny-{TASK}-cpu-float32.json").read_text())["rows"]
    assert [row["way"] for row in rows if row["what"] == "again"] == list(repeat.WAYS)
    others = [(row["sums"], row["bank_runs"]) for row in rows if row["what"] == "other banks"]
    assert others == [(way, 4) for way in sums]
    for row in rows:
        again = row["what"] == "again"
        assert (row["compared"], row["answers"]) == ((4, 800) if again else (2, 400))
        assert row["weights"] < 1e-5
        assert row["other_answers"] == row["accuracy"] == 0
        if again:
            assert row["equal"] == 4
            assert row["step"]["repeats"] == 2
    assert Bank.logits.__module__ == "cpadapt.bank.bank", "what was changed is restored"


def test_a_difference_between_trainings_is_the_largest() -> None:
    weights, logits = np.zeros(3, np.float32), np.zeros((2, 2), np.float32)
    one = repeat.Trained(weights, logits, np.array([0.5, 0.4]), np.array([True, False, True, True]))
    apart = repeat.Trained(weights + 0.25, logits, np.array([0.5, 0.7]), np.array([True, True, False, False]))
    step = measured.Timed.of([1.0])
    banks = [
        repeat.TrainedBank({"a": one, "b": one, "c": apart}, step),
        repeat.TrainedBank({"a": one, "b": apart}, step),
    ]
    found = repeat.difference(banks, {"a": one, "b": one})
    assert found.pop("dev_loss_by_evaluation") == pytest.approx([0.0, 0.3])
    assert found == {
        "compared": 4, "equal": 3, "weights": 0.25, "logits": 0.0, "answers": 16, "other_answers": 3, "accuracy": 0.25,
    }  # fmt: skip


def test_a_shape_has_a_known_models_sizes_and_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = load_backbone("tiny")
    monkeypatch.setattr(shapes, "_tokenizer", lambda: tiny.tokenizer)
    made: Backbone = shapes.load("tiny-shape", dtype="float32", device="cpu")
    assert made.projections == tiny.projections
    assert made.decoder
    # It runs, packed too.
    tokens = np.arange(3, 13)
    row = pack(tokens, None, np.array([0, 4, 10]), np.array([[0, 1]]), torch.device("cpu"))
    assert made.model(input_ids=row.tokens).last_hidden_state.isfinite().all()
    with pytest.raises(InputError, match="no shape 'unknown-shape'"):
        shapes.load("unknown-shape", dtype="float32", device="cpu")
    assert shapes.load("tiny-encoder", dtype="float32", device="cpu").source.name == "seed 0"


def test_the_papers_model_as_a_shape() -> None:
    config = shapes.BACKBONES["opt-1.3b"].config()
    sizes = ("hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads", "vocab_size",
             "max_position_embeddings", "word_embed_proj_dim")  # fmt: skip
    assert [getattr(config, name) for name in sizes] == [2048, 8192, 24, 32, 50272, 2048, 2048]


GRID = """
name = "a-grid"
backbone = "tiny"
tasks = ["toy-entailment"]
seeds = [0, 1]

[ladder.sizes]
lora = [1]
cp = [1, 2]

[families.lora]
learning_rates = [1e-4]

[families.cp]
learning_rates = [2e-4]

[protocol]
steps = 50
eval_every = 10
train_cap = 20
dev_cap = 16
eval_cap = 24
"""


@pytest.mark.long
def test_a_grid_runs_by_the_command_and_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = load_backbone("tiny")
    monkeypatch.setattr(shapes, "_tokenizer", lambda: tiny.tokenizer)
    (tmp_path / "a.toml").write_text(GRID)
    with pytest.raises(paper_grid.typer.Exit) as ended:
        paper_grid.main(tmp_path / "a.toml", None, steps=2, blocks=2, results=tmp_path)
    assert not ended.value.exit_code
    rows = json.loads((tmp_path / "grid-a-grid.json").read_text())["rows"]
    assert [(row["what"], row["task"]) for row in rows] == [("records", TASK), ("records", TASK), ("bank", TASK)]
    assert [row["way"] for row in rows[:2]] == ["command", "papermill"]
    assert rows[0]["runs"] == rows[1]["runs"] == rows[2]["times"]["runs"] == 6
    assert rows[2]["times"]["block_steps"] == 2


def test_random_weights_stand_in_for_a_known_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = load_backbone("tiny")
    monkeypatch.setattr(shapes, "_tokenizer", lambda: tiny.tokenizer)

    def small() -> OPTConfig:
        return OPTConfig(
            vocab_size=300, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
            word_embed_proj_dim=16, max_position_embeddings=64,
        )  # fmt: skip

    monkeypatch.setitem(BACKBONES, "opt-125m", dataclasses.replace(BACKBONES["opt-125m"], config=small))
    monkeypatch.setenv("CPADAPT_HOME", "/where-it-was")
    with paper_grid.stand_in("opt-125m"):
        found = load_backbone("opt-125m")
        assert os.environ["CPADAPT_HOME"] != "/where-it-was"
    assert os.environ["CPADAPT_HOME"] == "/where-it-was"
    assert found.source.kind == "local"
    assert found.source.sha256
    assert [(p.out_features, p.in_features) for p in found.projections] == 4 * [(16, 16)]


def test_a_banks_rows_have_room_for_what_comes(data: TaskData) -> None:
    runs = bank_times.study_runs("tiny", TASK, PROTOCOL, 6)
    trainer = Trainer(load_backbone("tiny"), runs, {0: data}, max_tokens=300)
    capacities = bank_times.capacities(trainer, 4)
    assert len(trainer.rows) > 1
    for step, row_tokens in enumerate(capacities):
        chosen = trainer._batches(step)
        for row, tokens in zip(trainer.rows, row_tokens, strict=True):
            assert tokens >= trainer._lengths("train", chosen[row.run_slice.runs]).sum()
    assert bank_times.most_common([[3, 5], [4, 5], [4, 6]]) == [4, 5]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_sm90_tst_192x192_64x3_1x4_h_bz_coopB_NNN", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x32_8x5_nn_align1>(…)", "matrix products"),
        ("_backward_queries", "attention"),
        ("_pair", "adapters' products"),
        ("_matrices", "adapters' products"),
        ("triton_per_fused__to_copy_add_div_expand_mul_pow_select_backward_sum_view_5", "elementwise"),
        ("triton_poi_fused__unsafe_view_clone_low_rank_backward_select_backward_2", "elementwise"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert frozen_backbone.kind_of(kernel) == kind
