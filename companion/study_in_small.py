"""The page that checks an installation: the study in small as this machine ran it, in tables."""

from collections.abc import Sequence

import pandas as pd

from cpadapt.analysis.charts import cell_name, task_name
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD
from cpadapt.records.record import Record
from cpadapt.study import Study

BACKBONES = {"minilm": "MiniLM", "tiny-encoder": "two random layers (the package of MiniLM is not installed here)"}


def comparison_table(here: pd.DataFrame, elsewhere: pd.DataFrame) -> pd.DataFrame:
    """How far the same runs agree on two machines, as a printed table.

    Args:
        here: the runs of this machine, as `cpadapt.tabulate` returns them.
        elsewhere: those of the other; runs that only one has are left out.
    """
    first, second = (runs.set_index("id") for runs in (here, elsewhere))
    both = first.index.intersection(second.index)
    moved = (first.loc[both, "correct"] - second.loc[both, "correct"]).abs()
    return pd.DataFrame(
        {
            "runs in both": [len(both)],
            "equally many right": [int((moved == 0).sum())],
            "furthest apart": [f"{int(moved.max())} of {int(first['total'].iloc[0])} examples"],
            "this machine": [first["device"].iloc[0]],
            "the other": [second["device"].iloc[0]],
        }
    )


def summary_table(study: Study, records: Sequence[Record]) -> pd.DataFrame:
    """What was trained, how long it took, and how many adapters were best on dev at the last step."""
    adapters = [record for record in records if record.label != HEAD]
    rising = sum(record.best_step == study.protocol.steps for record in adapters)
    cost, sets = records[0].cost, records[0].data["sets"]
    return pd.DataFrame(
        {
            "task": [task_name(study.tasks[0])],
            "runs": [len(records)],
            "steps": [study.protocol.steps],
            "training examples": [sets["train"]["size"]],
            "evaluation items": [sets["eval"]["size"]],
            "seconds": [f"{cost.train_seconds + cost.evaluation_seconds:.0f}"],
            "best at the last step": [f"{rising} of {len(adapters)} adapters"],
        }
    )


def example_table(study: Study) -> pd.DataFrame:
    """Two training examples of each label."""
    spec = TASKS[study.tasks[0]]
    train = load_task(spec, caps=study.protocol.caps).train
    examples = pd.DataFrame(
        {
            "text": [" / ".join(texts) for texts in train.texts],
            "label": [spec.label_names[label] for label in train.labels],
        }
    )
    return examples.groupby("label").head(2).sort_values("label")


def cell_table(best: pd.DataFrame) -> pd.DataFrame:
    """The cells of a frontier, as a printed table."""
    columns = {
        "adapter": [cell_name(label, size) for label, size in zip(best["label"], best["size"], strict=True)],
        "scalars": best["parameters"].map("{:,}".format),
    }
    for title, column in (("dev, %", "dev_mean"), ("eval, %", "eval_mean"), ("sd over seeds", "eval_sd")):
        columns[title] = (100 * best[column]).map("{:.1f}".format)
    return pd.DataFrame(columns)
