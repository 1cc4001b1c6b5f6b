"""Errors put into a copy of the project, one at a time, each of which a test has to catch.

    python tests/planted_errors.py [--only NAME]

A number stands in one place and its second computation in none, so what guards it has to be shown: each error here is
one that somebody might make, and the tests beside it are those that must fail. It is no test itself, as it takes
minutes; run it where quantities, their tests or what they rest on change.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "_build", "__pycache__", ".*_cache", "dist", "*.egg-info", "notebooks.lock"
)

QUANTITIES = "tests/companion/test_quantities.py"
KEPT = f"{QUANTITIES}::test_the_committed_numbers_are_those_of_the_records"
CLAIMED = f"{QUANTITIES}::test_what_a_page_claims_is_so"
USED = f"{QUANTITIES}::test_every_quantity_is_used"
PRINTED = f"{QUANTITIES}::test_what_a_page_prints_is_known"


@dataclass(frozen=True)
class Planted:
    """One error, and what has to catch it."""

    file: str
    old: str | Callable[[bytes], bytes]
    """Text that stands there once, or what makes the file's content from what it is."""
    new: str = ""
    caught_by: tuple[str, ...] = (KEPT,)
    """Tests of which each has to fail."""
    chapter: str = "noise"
    """Whose numbers it touches; the others' count as computed."""
    renewed: bool = False
    """Whether `make quantities` is run after it, as whoever makes the error might: then a claim or an oracle has to
    catch it."""
    refused: str = ""
    """What `make quantities` says, where the numbers cannot be computed with it."""


SETTLE = """
import json, sys
from companion import quantities
for chapter in set(quantities.CHAPTERS) - {sys.argv[1]}:
    file = quantities.kept(chapter)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"key": quantities.key(chapter, content["sources"])}))
"""
"""What has the numbers of the other chapters count as computed, though the error may be in what they share."""


def _without_last_record(content: bytes) -> bytes:
    import lzma

    lines = lzma.decompress(content).decode().splitlines(keepends=True)
    return lzma.compress("".join(lines[:-1]).encode())


NUMBERS = "tests/companion/test_noise_by_hand.py"
VERDICTS = "tests/companion/test_verdicts.py"
SIZE = "tests/companion/test_size.py"
DIFFERENCES = f"{NUMBERS}::test_differences"
OF_TASKS = "tests/companion/test_tasks.py"
RUNS = "tests/companion/test_what_was_run.py"
SMALL = "tests/companion/test_study_in_small.py"
COSTS = "tests/companion/test_what_a_run_costs.py"
CAUSES = "tests/companion/test_causes.py"
RATES = "tests/companion/test_rates.py"
READOUT = "tests/companion/test_readout.py"
TENSORIZATION = "tests/companion/test_tensorization.py"

ERRORS: dict[str, Planted] = {
    "wrong sign": Planted(
        "companion/noise.py",
        "return compare(cells.outcomes[a], cells.outcomes[b])",
        "return compare(cells.outcomes[b], cells.outcomes[a])",
        (DIFFERENCES, CLAIMED),
        renewed=True,
    ),
    "swapped family": Planted(
        "companion/noise.py",
        '"lora1_cp11": (LORA1, CP11)',
        '"lora1_cp11": (CP11, LORA1)',
        (DIFFERENCES, CLAIMED),
        renewed=True,
    ),
    "lost record": Planted("results/smollm2-seeds", _without_last_record),
    "lost interval": Planted(
        "companion/quantities/__init__.py",
        "Value(result.mean, *result.interval(entry.level), n=seeds, level=entry.level)",
        "Value(result.mean, n=seeds)",
        chapter="main_study",
        renewed=True,
        # The README asks for it.
        refused="has no interval",
    ),
    "wrong level": Planted(
        "companion/quantities/__init__.py",
        "*result.interval(entry.level), n=seeds",
        "*result.interval(0.9), n=seeds",
        (DIFFERENCES,),
        renewed=True,
    ),
    "wrong study": Planted(
        "companion/noise.py",
        'if task == "boolq" else "smollm2-seeds"',
        'if task == "boolq" else "smollm2-data-seeds"',
        (DIFFERENCES, CLAIMED),
        renewed=True,
    ),
    "unnamed study": Planted(
        "companion/quantities/noise.py",
        '(SEEDS, "smollm2-rates"), each=TASKS)',
        "(SEEDS,), each=TASKS)",
    ),
    "wrong rounding": Planted(
        "companion/wording.py",
        'f"{value:,.{digits}f}"',
        'f"{value:,.{digits + 1}f}"',
        (f"{QUANTITIES}::test_how_a_quantity_is_printed",),
    ),
    "points twice": Planted(
        "companion/quantities/noise.py",
        "return noise.unpaired(noise.at_papers_rates(task))",
        "return 100 * noise.unpaired(noise.at_papers_rates(task))",
    ),
    "claim turned round": Planted(
        "notebooks/noise.py",
        "{says}`noise.over_floor.rte.low > 0`",
        "{says}`noise.over_floor.rte.low < 0`",
        (CLAIMED,),
    ),
    "claim of an unknown number": Planted(
        "notebooks/noise.py", "{says}`noise.over_floor.rte.low > 0`", "{says}`noise.over_flor.rte > 0`", (CLAIMED,)
    ),
    "misspelt name": Planted(
        "notebooks/noise.py", "{q}`noise.first_rank_spread`", "{q}`noise.first_rank_sd`", (PRINTED, USED)
    ),
    "typed number": Planted("notebooks/noise.py", "{q}`noise.first_rank_spread`", "0.4", (USED,)),
    "number changed by hand": Planted(
        "results/quantities.json", '"noise.steps": {"value": 2000', '"noise.steps": {"value": 2500'
    ),
    "one-sided for two-sided": Planted(
        "cpadapt/analysis/statistics.py",
        "reach = float(stats.t.ppf((1 + level) / 2, self.degrees))",
        "reach = float(stats.t.ppf(level, self.degrees))",
        (DIFFERENCES,),
        renewed=True,
    ),
    "items left out of the error": Planted(
        "companion/draws.py",
        "len(by_draw) + on_eval.item_variance * shared",
        "len(by_draw)",
        (f"{NUMBERS}::test_dev_over_draws",),
        renewed=True,
    ),
    "item that is not gained": Planted(
        "companion/one_task.py",
        '"gained": tuple(items[never(before) & always(after)].tolist())',
        '"gained": tuple(items[never(before) & never(after)].tolist())',
        ("tests/companion/test_one_task.py::test_items_that_change", f"{OF_TASKS}::test_items_gained"),
        chapter="tasks",
        renewed=True,
    ),
    "best cell of one family": Planted(
        "companion/quantities/tasks.py",
        "(label, size)) for label in LABELS for size in",
        '(label, size)) for label in ["cp"] for size in',
        (f"{OF_TASKS}::test_how_cells_lie",),
        chapter="tasks",
        renewed=True,
    ),
    "other task's records": Planted(
        "companion/quantities/tasks.py",
        "return one_task.task_on_record(STUDY, task)",
        'return one_task.task_on_record(STUDY, "boolq" if task == "rte" else task)',
        (CLAIMED, f"{OF_TASKS}::test_loras_lead"),
        chapter="tasks",
        renewed=True,
    ),
    "step the other way": Planted(
        "companion/encoder.py",
        '"lora1_cp9": (LORA1, CP9)',
        '"lora1_cp9": (CP9, LORA1)',
        (CLAIMED,),
        chapter="encoder",
        renewed=True,
    ),
    "one answer of the wrong rank": Planted(
        "companion/quantities/encoder.py",
        "return encoder.cells()[task].collapsed(LORA8)",
        "return encoder.cells()[task].collapsed(LORA1)",
        ("tests/companion/test_encoder.py::test_runs_with_one_answer",),
        chapter="encoder",
        renewed=True,
    ),
    "one rank for two": Planted(
        "companion/bench.py",
        "statistics.harmonic_mean([row",
        "statistics.mean([row",
        (f"{COSTS}::test_turns_on_a_cpu",),
        renewed=True,
        chapter="what_a_run_costs",
    ),
    "start-up left out": Planted(
        "companion/bench.py",
        "ways.append(startup + p.steps",
        "ways.append(p.steps",
        (f"{COSTS}::test_a_bank_of_other_runs",),
        renewed=True,
        chapter="what_a_run_costs",
    ),
    "ratio turned round": Planted(
        "companion/quantities/what_a_run_costs.py",
        'return bench.a_token(place(*setting), "bank step") / bench.a_token(place(*setting), "frozen backbone")',
        'return bench.a_token(place(*setting), "frozen backbone") / bench.a_token(place(*setting), "bank step")',
        (CLAIMED,),
        renewed=True,
        chapter="what_a_run_costs",
    ),
    "measured anew": Planted(
        "results/bench/two-gpus-smollm2-rte-b8.json",
        lambda content: content.replace(b'"median": 4', b'"median": 5'),
        chapter="what_a_run_costs",
    ),
    "runs of another config": Planted(
        "companion/what_was_run.py",
        "known = {record.config_id: record for record in records(study.name)}",
        "known = {record.id: record for record in records(study.name)}",
        (f"{RUNS}::test_progress_is_the_sum_over_the_cells_of_status",),
        renewed=True,
        chapter="what_was_run",
    ),
    "a bank's time for each of its runs": Planted(
        "companion/what_was_run.py",
        "r.cost.evaluation_seconds) / r.cost.bank_runs for",
        "r.cost.evaluation_seconds) for",
        (f"{RUNS}::test_costs_by_hand",),
        renewed=True,
        chapter="what_was_run",
    ),
    "the paper's fields for ours": Planted(
        "companion/quantities/protocol.py",
        "values()).count(whose)",
        'values()).count("ours")',
        chapter="protocol",
    ),
    "machines apart, one way alone": Planted(
        "companion/study_in_small.py",
        '(first.loc[both, "correct"] - second.loc[both, "correct"]).abs()',
        'first.loc[both, "correct"] - second.loc[both, "correct"]',
        (f"{SMALL}::test_two_machines_by_hand",),
        chapter="readme",
    ),
    "correction left out": Planted(
        "companion/first_frontiers.py",
        'found = pd.DataFrame(rows)\n    return found.assign(holm=holm(found["p"].tolist()))',
        'found = pd.DataFrame(rows)\n    return found.assign(holm=found["p"])',
        (CLAIMED, "tests/companion/test_first_frontiers.py::test_differences_at"),
        chapter="first_frontiers",
        renewed=True,
    ),
    "family behind called ahead": Planted(
        "companion/first_frontiers.py",
        '"mean": -real["gap"]',
        '"mean": real["gap"]',
        ("tests/companion/test_first_frontiers.py::test_differences_at",),
        chapter="first_frontiers",
    ),
    "size: families turned round": Planted(
        "companion/size.py",
        'found.outcomes["cp", size].right - found.outcomes["lora", rank].right',
        'found.outcomes["lora", rank].right - found.outcomes["cp", size].right',
        (f"{SIZE}::test_the_families_and_the_head_alone",),
        chapter="size",
        renewed=True,
    ),
    "size: the best with the head": Planted(
        "companion/size.py",
        "return max(means.values()) - head",
        "return max(means.values()) - min(means.values())",
        (f"{SIZE}::test_the_families_and_the_head_alone",),
        chapter="size",
        renewed=True,
    ),
    "claims: tuned at one rate": Planted(
        "companion/verdicts.py",
        'Case("SmolLM2", "tuned", ("smollm2", "smollm2-rates"))',
        'Case("SmolLM2", "tuned", ("smollm2", "smollm2-rates"), PAPER_RATES)',
        (f"{VERDICTS}::test_a_difference_of_tuned_cells", CLAIMED),
        chapter="claims",
        renewed=True,
    ),
    "claims: on the edge for held": Planted(
        "companion/claims.py",
        "        verdict = Verdict.EDGE\n",
        "        verdict = Verdict.HOLDS\n",
        (CLAIMED,),
        chapter="claims",
        renewed=True,
    ),
    "claims: one end for two": Planted(
        "companion/verdicts.py",
        "return max(2 * shown - 1, 0) if two_ends else shown",
        "return shown",
        (f"{VERDICTS}::test_power_is_the_share_of_tables_that_would_show_it",),
        chapter="claims",
    ),
    "vectors that count as free": Planted(
        "companion/quantities/cp_adapter.py",
        "- (len(COMPONENT) - 1)",
        "- len(COMPONENT)",
        ("tests/companion/test_cp_adapter.py::test_numbers_by_hand",),
        "cp_adapter",
        renewed=True,
    ),
    "files of half the bytes": Planted(
        "companion/parameter_steps.py",
        "MANY * 4 * scalars",
        "MANY * 2 * scalars",
        ("tests/companion/test_parameter_steps.py::test_what_a_step_costs_by_hand",),
        "parameter_steps",
        renewed=True,
    ),
    "a rank that is no more than a component": Planted(
        "notebooks/cp_adapter.py",
        "cp_adapter.step.lora > cp_adapter.step.cp",
        "cp_adapter.step.lora < cp_adapter.step.cp",
        (CLAIMED,),
        "cp_adapter",
    ),
    "a component over a rank": Planted(
        "companion/quantities/use_in_peft.py",
        'counting.count("lora", projections, 1) / counting.count("cp", projections, 1)',
        'counting.count("cp", projections, 1) / counting.count("lora", projections, 1)',
        ("tests/companion/test_use_in_peft.py::test_the_export_by_hand",),
        "use_in_peft",
        renewed=True,
    ),
    "the shortfall for the excess": Planted(
        "companion/protocol.py",
        'return scalars["cp"] / scalars["lora"] - 1',
        'return 1 - scalars["lora"] / scalars["cp"]',
        ("tests/companion/test_protocol.py::test_numbers_by_hand",),
        "protocol",
        renewed=True,
    ),
    "all items where a thousand are asked": Planted(
        "companion/protocol.py",
        "return min(items, Protocol().eval_cap or items)",
        "return items",
        ("tests/companion/test_protocol.py::test_evaluation_sets_have_the_sizes_of_the_records",),
        "protocol",
    ),
    "a field of another owner": Planted(
        "companion/quantities/protocol.py",
        "list(Protocol().sources().values()).count(whose)",
        'list(Protocol().sources().values()).count("paper")',
        (CLAIMED,),
        "protocol",
        renewed=True,
    ),
    "weights for order": Planted(
        "companion/causes.py",
        "crossed(orders[cell], lambda c: (c.seed, c.order))",
        "crossed(orders[cell], lambda c: (c.order, c.seed))",
        (CLAIMED, f"{CAUSES}::test_parts_of_a_real_table_by_hand"),
        chapter="causes",
        renewed=True,
    ),
    "variance for its root": Planted(
        "companion/quantities/causes.py",
        "    return math.sqrt(max(variance, 0.0))",
        "    return max(variance, 0.0)",
        (CLAIMED, f"{CAUSES}::test_parts_of_a_real_table_by_hand"),
        chapter="causes",
        renewed=True,
    ),
    "another order taken for the same run": Planted(
        "companion/causes.py",
        "if r.config.order_seed == r.config.seed}",
        "if r.config.order_seed == (r.config.seed + 1) % 10}",
        (CLAIMED, f"{CAUSES}::test_trained_twice_are_the_same_runs_in_other_banks"),
        chapter="causes",
        renewed=True,
    ),
    "rate chosen on eval": Planted(
        "cpadapt/analysis/frontier.py",
        '["share", "dev_mean", *SETTING]',
        '["share", "eval_mean", *SETTING]',
        (f"{RATES}::test_leads_and_gains_on_a_real_table_by_hand",),
        chapter="rates",
        renewed=True,
    ),
    "change turned round": Planted(
        "companion/rates.py",
        "return estimate(_gap(after, pairs) - _gap(before, pairs))",
        "return estimate(_gap(before, pairs) - _gap(after, pairs))",
        (f"{RATES}::test_leads_and_gains_on_a_real_table_by_hand",),
        chapter="rates",
        renewed=True,
    ),
    "head for words": Planted(
        "companion/readout.py",
        "return [spoken[cell].right - heads[cell].right for cell in cells]",
        "return [heads[cell].right - spoken[cell].right for cell in cells]",
        (CLAIMED, f"{READOUT}::test_what_words_change_by_hand"),
        chapter="readout",
        renewed=True,
    ),
    "other seeds of the same cells": Planted(
        "companion/readout.py",
        '"boolq", [seed for seed, _ in few.outcomes[HEAD, 0].seeds])',
        '"boolq", [seed + 1 for seed, _ in few.outcomes[HEAD, 0].seeds])',
        chapter="readout",
        renewed=True,
        refused="runs are compared seed by seed",
    ),
    "other items of the same cells": Planted(
        "companion/readout.py",
        'asked = few.outcomes["cp", 1].items',
        'asked = many.outcomes["cp", 1].items[: len(few.outcomes["cp", 1].items)]',
        chapter="readout",
        renewed=True,
        refused="runs are compared item by item",
    ),
    "a text that is shared of another task": Planted(
        "notebooks/shared/task.py",
        "tasks.loss.TASK.most < 0.01",
        "tasks.loss.TASK.most > 0.01",
        (CLAIMED,),
        chapter="tasks",
    ),
    "rate of another family": Planted(
        "companion/quantities/rates.py",
        'here = found.loc[(found["label"] == label) & (found["size"] == size) & (found["times"] == TIMES[times]), "mean"]',
        'here = found.loc[(found["label"] == label) & (found["size"] == size) & (found["times"] == 1), "mean"]',
        (f"{RATES}::test_leads_and_gains_on_a_real_table_by_hand",),
        chapter="rates",
        renewed=True,
    ),
    "default minus split": Planted(
        "companion/contrasts.py",
        """            compare(cells.outcomes[label, size], cells.outcomes["cp", default]),""",
        """            compare(cells.outcomes["cp", default], cells.outcomes[label, size]),""",
        (f"{TENSORIZATION}::test_differences_by_hand",),
        chapter="tensorization",
        renewed=True,
    ),
    "the default among the others": Planted(
        "companion/quantities/tensorization.py",
        """for label, found in tensorization.sizes().items() if label != "cp"]""",
        "for label, found in tensorization.sizes().items()]",
        (f"{TENSORIZATION}::test_the_average_by_hand",),
        chapter="tensorization",
        renewed=True,
    ),
}


def caught(planted: Planted) -> tuple[bool, str]:
    """Whether each of the tests fails on a copy of the project that has the error, and what pytest said."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        file = copy / planted.file
        if callable(planted.old):
            if file.is_dir():
                (file,) = sorted(file.glob("*.jsonl.xz"))[-1:]
            file.write_bytes(planted.old(file.read_bytes()))
        else:
            text = file.read_text(encoding="utf-8")
            if text.count(planted.old) != 1:
                raise SystemExit(f"{planted.file} has {planted.old!r} {text.count(planted.old)} times, not once")
            file.write_text(text.replace(planted.old, planted.new), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}

        def python(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=copy,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )

        python("-c", SETTLE, planted.chapter)
        if planted.renewed:
            renewed = python("-m", "companion.quantities", "--renew")
            if renewed.returncode or planted.refused:
                last = (renewed.stderr.strip().splitlines() or ["it is computed"])[-1]
                return bool(renewed.returncode and planted.refused and planted.refused in renewed.stderr), last
        files = dict.fromkeys(test.partition("::")[0] for test in planted.caught_by)
        names = [test.partition("::")[2] for test in planted.caught_by]
        run = python("-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *files, "-k", " or ".join(names))
        failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
        passed = [name for name in names if not any(f"::{name}" in line for line in failed)]
        return not passed, f"{', '.join(passed)} passed\n{run.stdout[-2000:]}" if passed else ", ".join(names)


def main() -> None:
    """Say of each error whether it is caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=ERRORS, help="this error alone")
    only = parser.parse_args().only
    subprocess.run([sys.executable, "-m", "companion.quantities"], cwd=ROOT, check=True)
    missed = []
    for name, planted in ERRORS.items():
        if only in (None, name):
            found, said = caught(planted)
            print(f"{'caught' if found else 'MISSED'}: {name} ({said})", flush=True)
            missed += [] if found else [name]
    sys.exit(f"{len(missed)} missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
