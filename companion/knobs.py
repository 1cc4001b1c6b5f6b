"""The experiment on CP's hidden knobs: what it varies, and which settings it hands on to its confirmation."""

from collections.abc import Iterable
from dataclasses import replace

from cpadapt.analysis.across_tasks import chosen_settings
from cpadapt.analysis.factors import Factor
from cpadapt.records.config import RunConfig
from cpadapt.records.record import Record

FACTORS = (
    Factor("rate", lambda config: config.learning_rate, {2e-3: -1, 4e-3: 0, 8e-3: 1}),
    Factor("scale", lambda config: config.scale, {4.0: -1, 8.0: 0, 16.0: 1}),
    Factor("warm-up", lambda config: config.warmup_steps or 0, {0: -1, 50: 1}),
    Factor("raw length", lambda config: config.options["raw_norm"], {0.5: -1, 1.0: 0, 2.0: 1}),
    Factor("start of λ", lambda config: config.options["init_std"] or 0.0, {0.0: -1, 0.05: 1}),
    Factor("weight decay on λ", lambda config: config.options["lambda_decay"], {0.0: -1, 0.3: 1}),
)
"""The knobs of the studies named `knobs-…`, with the codes of their levels."""

LORA, TODAY, KNOBS = "LoRA", "CP as today", "CP, all knobs"
"""What the confirmation compares."""


def chosen(records: Iterable[Record]) -> dict[str, RunConfig]:
    """The setting that dev chooses for LoRA, for CP with today's raw length, start and decay, and for CP with any.

    Args:
        records: the runs of one of the studies.

    Returns:
        By what the confirmation compares, a config whose task and seeds have no meaning.

    Raises:
        InputError: as `cpadapt.analysis.across_tasks.chosen_settings`.
    """
    records = list(records)
    candidates = {
        LORA: [record for record in records if record.label == "lora"],
        TODAY: [record for record in records if record.label == "cp"],
        # The labels of CP's knobs are one cell here.
        KNOBS: [replace(record, label="cp") for record in records if record.config.family == "cp"],
    }
    return {name: setting for name, runs in candidates.items() for setting in chosen_settings(runs).values()}
