"""What the records say of families, for `cpadapt plan`: the library's file `cpadapt/families/evidence.json`.

`make quantities` writes it from the committed numbers, and a test compares the two.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from companion import PROJECT, encoder, families, model_size, plan
from companion.plan import MAIN
from companion.quantities import Quantity
from cpadapt.families.evidence import FILE as FILE  # where it belongs
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.study import load_study

MORE = ("boolq-lifted", "boolq")
"""The study and task of the comparison with many examples."""


def text(values: Mapping[str, Quantity]) -> str:
    """The content of the file, from the book's numbers by name."""
    return json.dumps(content(values), indent=1) + "\n"


def content(values: Mapping[str, Quantity]) -> dict[str, Any]:
    """What `cpadapt.families.evidence.measured` describes."""
    main, (study, task) = load_study(PROJECT / "studies" / f"{MAIN}.toml"), MORE
    more = load_study(PROJECT / "studies" / f"{study}.toml")
    fewer, most = plan.AT_EQUAL_SIZE[MAIN].values()
    return {
        "families": list(main.ladder.sizes),
        "examples": main.protocol.train_cap,
        "studies": [_of_model(model, study, values) for model, study in model_size.STUDIES.items()],
        "larger": {
            "model": model_size.title(MAIN),
            "from": fewer,
            "to": most,
            "gain": _number(values["planned.number.test5"]),
        },
        "more_examples": {
            "model": BACKBONES[more.backbone].title,
            "task": TASKS[task].title,
            "examples": int(values["readout.train"].value),
            "gain": _number(values["readout.first_gain"]),
            "rank": 4,
            "rank_gain": _number(values["which_adapter.more_ranks"]),
        },
        "encoder": {
            "model": model_size.title(encoder.STUDY),
            "shares": _shares(values),
        },
        "smallest": {
            "family": "lokr",
            "verdicts": {
                model_size.title(study): values[f"families.verdict.{families.SMALLEST}.{model}"].value
                for model, study in families.STUDIES.items()
            },
        },
    }


def _shares(values: Mapping[str, Quantity]) -> list[dict[str, Any]]:
    """One component's share on the encoder, by task, from the least."""
    start = "encoder.way."
    found = sorted((known for name, known in values.items() if name.startswith(start)), key=lambda known: known.value)
    return [{"task": TASKS[known.name.removeprefix(start)].title, "share": _number(known)} for known in found]


def _of_model(model: str, study: str, values: Mapping[str, Quantity]) -> dict[str, Any]:
    found = load_study(PROJECT / "studies" / f"{study}.toml")
    shapes = Counter((p.out_features, p.in_features) for p in load_projections(found.backbone, found.target_modules))
    return {
        "model": model_size.title(study),
        "tasks": len(found.tasks),
        "projections": [[*shape, times] for shape, times in shapes.items()],
        "verdict": values[f"model_size.verdict.{model}"].value,
        "lead": _number(values[f"model_size.lead.{model}"]),
        "share": _number(values[f"model_size.share.{model}"]),
    }


def _number(known: Quantity) -> dict[str, Any]:
    """A number with its interval, and as it is printed, in characters that every terminal has."""
    printed = known.text("full").replace("−", "-").replace("\u202f", " ")
    return {"value": known.value, "low": known.low, "high": known.high, "level": known.level, "text": printed}
