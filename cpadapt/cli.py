"""The command line. A mistake ends with one line and exit status 2, before anything is trained.

Each command imports what it needs, so that help and questions about shapes do not wait for torch.
"""

import dataclasses
import json
import math
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cpadapt.errors import UNPARSABLE, InputError, did_you_mean, whole
from cpadapt.signals import end

EXTRA = ("datasets", "filelock", "jaxtyping", "packaging", "pandas", "pydantic", "rich", "typer")
"""Packages of the extra `study`; the commands need them."""


def _fail(message: str) -> NoReturn:
    print(f"cpadapt: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _without_extra(error: ModuleNotFoundError) -> NoReturn:
    """Say how to install a missing package.

    Raises:
        ModuleNotFoundError: the package is not one of `EXTRA`.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA:
        raise error
    _fail(f"the command line needs {package}: run pip install 'cpadapt[study]'")


try:
    import typer
except ModuleNotFoundError as error:
    _without_extra(error)

if TYPE_CHECKING:
    from cpadapt.families.counting import Cost
    from cpadapt.inputs.backbones.specs import Projection
    from cpadapt.records.record import Record
    from cpadapt.study import Study

app = typer.Typer(
    help="How small can an adapter be, and how sure are we? CP and LoRA at every parameter budget.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help is plain, because importing rich would double its time.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""The error for a wrong option, argument or command; its module differs between versions of typer."""


def _integer(text: str) -> int:
    value = whole(text)
    if value is None:
        raise typer.BadParameter(f"{text!r} is not an integer")
    return value


def _positive(text: str) -> float:
    from cpadapt.families.counting import LARGEST_BUDGET

    # As the commands print numbers.
    grouped = re.fullmatch(r"\d{1,3}(,\d{3})+", text)
    try:
        value = float(text.replace(",", "") if grouped else text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None
    if not 0 < value <= LARGEST_BUDGET:  # not a number, in floating point, is neither
        raise typer.BadParameter(f"{text!r} must be above 0 and at most {LARGEST_BUDGET:g}")
    return value


def _positive_whole(text: str) -> int:
    value = _positive(text)
    if not value.is_integer():
        raise typer.BadParameter(f"{text!r} is not a whole number")
    return int(value)


records_app = typer.Typer(help="Maintain folders of records.", rich_markup_mode=None)
app.add_typer(records_app, name="records")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with TASK/SPLIT.jsonl(.xz), instead of the hub.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a field of the protocol; may be repeated."),
]
Save = Annotated[Path | None, typer.Option(help="Folder for each run's best weights, as PEFT adapters.")]
Force = Annotated[bool, typer.Option("--force", help="Retrain runs that already have a record.")]
Device = Annotated[str | None, typer.Option(help="Device as torch names it (default: the first GPU, or the CPU).")]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="all|N",
        help="A process on every GPU, or on N of them, that share the work; without a GPU, N processes on the CPU.",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Give the same numbers each time on one kind of GPU; slower. On the CPU they are the same anyway.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]


@app.command()
def steps(
    out_features: Annotated[
        int, typer.Argument(metavar="OUT", parser=_integer, help="Output features of the projection.")
    ],
    in_features: Annotated[
        int, typer.Argument(metavar="IN", parser=_integer, help="Input features of the projection.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what one more rank or component costs on a projection.

    Example: cpadapt steps 2048 2048
    """
    from cpadapt.families import FAMILIES, counting

    rows = counting.step_rows(_projection(out_features, in_features))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        refused, family = row.get("not applicable") is not None, FAMILIES[row["family"]]
        tensors = {} if refused else family.shapes(out_features, in_features, family.smallest())
        row["a unit's tensors"] = " + ".join(f"{math.prod(shape[1:]):,}" for shape in tensors.values())
    _print_table(f"{out_features} x {in_features}", rows)
    typer.echo(_not_in_a_bank())


@app.command()
def plan(
    backbone: Annotated[
        str | None, typer.Option(help="A known name, such as smollm2, a hub id or a local folder.")
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="The backbone's modules that get adapters, such as q_proj,v_proj (default: PEFT's).",
        ),
    ] = None,
    out_features: Annotated[
        int | None,
        typer.Option(
            "--out", metavar="N", parser=_integer, help="Output features of a projection, instead of a backbone."
        ),
    ] = None,
    in_features: Annotated[
        int | None, typer.Option("--in", metavar="N", parser=_integer, help="Input features of that projection.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(metavar="N", parser=_integer, help="How many such projections there are (default: 1)."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=_positive_whole, help="Trainable scalars over all target modules, such as 1e6."
        ),
    ] = None,
    file_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=_positive_whole,
            help="Or: bytes of the float32 tensors that --save writes. A header adds some 130 bytes a tensor.",
        ),
    ] = None,
    state_mib: Annotated[
        float | None,
        typer.Option(
            metavar="X", parser=_positive, help="Or: MiB of AdamW's state, two float32 moments for each scalar."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every family's largest adapter at or under a budget, and recommend one where the records allow it.

    Example: cpadapt plan --backbone smollm2 --budget 57600

    Example: cpadapt plan --out 2048 --in 2048 --layers 48 --state-mib 1.5
    """
    from cpadapt.families import counting, evidence

    title, projections = _planned(backbone, target_modules, out_features, in_features, layers)
    asked = _budget(budget, file_bytes, state_mib)
    planned = counting.plan(projections, asked.limit, asked.cost)
    offers = counting.rows(planned)
    fitting = [offer for offer in offers if offer["size"]]
    if not fitting:
        raise InputError(
            f"a budget of {asked.text} is below the smallest adapters: "
            + ", ".join(
                f"{o['family']} {asked.show(o['smallest_cost'])}" for o in offers if o["smallest_cost"] is not None
            )
            + f"; PEFT's tuners {_start_at(projections)}"
        )
    advice = evidence.recommend(projections, planned)
    if as_json:
        _print_json({"offers": offers, "advice": dataclasses.asdict(advice)})
        return
    rows = [
        {
            "family": offer["family"],
            "size": offer["size"],
            "scalars": offer["parameters"],
            "unused": f"{100 * offer['unspent'] / asked.limit:.1f} %",
            "file, bytes": offer["file_bytes"],
            "AdamW's state": _mib(offer["adam_bytes"]),
            "next step": "no larger" if offer["step"] is None else offer["step"],
        }
        for offer in fitting
    ]
    _print_table(f"{title}; budget {asked.text}", rows)
    for offer in offers:
        if offer.get("not applicable"):
            typer.echo(f"{offer['family']}: not applicable to {offer['not applicable']}")
        elif not offer["size"]:
            typer.echo(f"{offer['family']}: none fits; the smallest has {asked.show(offer['smallest_cost'])}")
    typer.echo("File: the float32 tensors that --save writes; a header adds some 130 bytes for each of them.")
    typer.echo("AdamW's state: two float32 moments for each scalar.")
    typer.echo(f"Not listed, because they don't fit a bank: PEFT's tuners. They {_start_at(projections)}.")
    typer.echo()
    for line in filter(None, (advice.take, advice.why, advice.unknown)):
        typer.echo(line)


@app.command()
def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="Study file, such as studies/small.toml.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Measure only this task.")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", parser=_integer, help="Measure only the cells at this budget.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Measure only part I of N.")] = "1/1",
    set_: Settings = None,
    data_dir: DataDir = None,
    results: Annotated[Path | None, typer.Option(help="Folder of records (default: results/STUDY-NAME).")] = None,
    save: Save = None,
    force: Force = False,
    device: Device = None,
    devices: Devices = None,
    deterministic: Deterministic = False,
    quiet: Quiet = False,
) -> None:
    """Measure a study. Runs that already have a record are not trained again.

    The same command may run several times at once: each process trains different runs. After SIGTERM it saves its
    state and exits with status 143; run it again to continue.

    Example: cpadapt run studies/smollm2-pilot.toml --task rte --data-dir DATA
    """
    if study is None:
        raise InputError("give a study file, or name the runs on the command line with `cpadapt try`")
    from cpadapt.study import Shard, load_study

    _measure(
        load_study(study),
        set_,
        results,
        task=task,
        budget=budget,
        shard=Shard.parse(shard),
        data_dir=data_dir,
        save=save,
        force=force,
        device=device,
        devices=devices,
        deterministic=deterministic,
        quiet=quiet,
    )


@app.command("try")
def try_(
    backbone: Annotated[str, typer.Option(help="A known name, such as minilm, a hub id or a local folder.")],
    task: Annotated[str, typer.Option(help="A known task, or a TOML file that describes one.")],
    cell: Annotated[list[str], typer.Option(metavar="FAMILY:SIZE", help="lora:4, cp:21 or head; may be repeated.")],
    results: Annotated[Path, typer.Option(help="Folder of records.")],
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0-2 or 0,3,7.")] = "0",
    learning_rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAMILY=RATE", help="Learning rate of a family (default: the family's); may be repeated."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", parser=_integer, help="Optimizer steps; dev is evaluated 5 times if 5 divides N."),
    ] = None,
    set_: Settings = None,
    data_dir: DataDir = None,
    save: Save = None,
    force: Force = False,
    device: Device = None,
    deterministic: Deterministic = False,
    quiet: Quiet = False,
) -> None:
    """Measure a few runs named here, without a study file.

    Example: cpadapt try --backbone minilm --task toy-sentiment --cell lora:1 --cell cp:9 --seeds 0-2 --steps 500
    --learning-rate cp=4e-3 --results build/try
    """
    _measure(
        _ad_hoc(backbone, task, cell, seeds, learning_rate or [], steps),
        set_,
        results,
        data_dir=data_dir,
        save=save,
        force=force,
        device=device,
        deterministic=deterministic,
        quiet=quiet,
    )


def _measure(
    study: "Study",
    settings: list[str] | None,
    results: Path | None,
    *,
    force: bool,
    device: str | None,
    devices: str | None = None,
    quiet: bool,
    **how: Any,
) -> None:
    """Train the runs without a record and print a table of all.

    Args:
        study: what to measure.
        settings: fields of the protocol to override, as NAME=VALUE.
        results: folder of records; by default the study's own.
        force: whether runs that have a record are trained too.
        device: where to train, in this process.
        devices: where to train, in a process for each.
        quiet: whether progress bars are left out.
        how: further arguments of `cpadapt.measure.measure`.
    """
    from cpadapt.versions import require_versions

    require_versions()  # before the imports that another version would break

    from cpadapt.display import Terminal
    from cpadapt.measure import measure
    from cpadapt.progress import known_records
    from cpadapt.study import with_protocol

    if settings:
        study = with_protocol(study, **dict(_setting(text) for text in settings))
    folder = results or Path("results") / study.name
    before = known_records(folder)
    how |= {"results": folder, "anew": before if force else None}
    status = 0
    if devices is None:
        measured = measure(study, device=device, display=Terminal(quiet), **how)
        records, trained = measured.records, measured.trained
    else:
        if device is not None:
            raise InputError(f"--device {device} and --devices {devices}: give one of them")
        records, status = _measure_on(devices, study, quiet, how)
        trained = sum(r != before.get(r.id) for r in records)
    on_record = sum(r == before.get(r.id) for r in records)
    by_others = len(records) - trained - on_record
    diverged = sum(r.diverged_at is not None for r in records)
    # The columns that distinguish the runs of a cell.
    shown = ["seed"] + ["data_seed"] * (len(study.data_seeds) > 1) + ["order_seed"] * bool(study.order_seeds)
    if any(plan.settings for plan in study.families.values()):
        shown = ["scale", "warmup_steps", *shown]
    _print_table(
        f"{study.name}: {trained} trained, {on_record} on record before"
        + (f", {by_others} trained by other processes" if by_others else "")
        + f"; {diverged} diverged",
        [
            {
                "task": r.config.task,
                **({} if r.config.teacher is None else {"teacher": r.config.teacher.title}),
                "family": r.label,
                "size": r.config.size,
                "parameters": r.counts.adapter,
                "rate": r.config.learning_rate,
                **{name.removesuffix("_steps").replace("_", " "): getattr(r.config, name) for name in shown},
                "best step": r.best_step,
                **_judged(r),
            }
            for r in records
            if r.best is not None
        ],
    )
    if status:
        sys.exit(status)


def _measure_on(devices: str, study: "Study", quiet: bool, how: dict[str, Any]) -> "tuple[list[Record], int]":
    """Measure in a process for each device, and say which failed; the records and the exit status."""
    from cpadapt.devices import devices as devices_of
    from cpadapt.devices import measure_on

    outcome = measure_on(devices_of(devices), study, quiet=quiet, **how)
    failures = outcome.failures
    if not outcome.records and outcome.status == 2 and len(set(failures.values())) == 1:
        _fail(next(iter(failures.values())))
    for device, failure in failures.items():
        print(f"cpadapt: {device}: {failure}", file=sys.stderr)
    if not outcome.records:
        sys.exit(outcome.status)
    return outcome.records, outcome.status


def _judged(record: "Record") -> dict[str, str]:
    """Accuracy on dev and eval or, with a teacher, the divergence (KL) from it in nats, as columns of a table."""
    if record.config.teacher is None:
        eval_accuracy = f"{record.outcome.accuracy:.3f}" if record.outcome else ""
        return {"dev": f"{record.best.dev_accuracy:.3f}" if record.best else "", "eval": eval_accuracy}
    outcomes = {"dev KL": record.dev, "eval KL": record.outcome}
    return {name: f"{outcome.divergence:.4f}" if outcome else "" for name, outcome in outcomes.items()}


@app.command("status")
def show_status(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file.")],
    results: Annotated[Path | None, typer.Option(help="Folder of records (default: results/STUDY-NAME).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which cells of a study are done, missing or diverged, and which processes are at work."""
    from cpadapt.inputs.backbones.projections import load_projections
    from cpadapt.progress import status
    from cpadapt.records.claims import at_work
    from cpadapt.records.store import load_records
    from cpadapt.study import load_study, records_of_other_versions

    asked = load_study(study)
    folder = results or Path("results") / asked.name
    working = at_work(folder)
    rows = [dataclasses.asdict(s) for s in status(asked, folder, working)]
    if as_json:
        _print_json(rows)
        return
    total = {name: sum(row[name] for row in rows) for name in ("done", "missing", "diverged", "running", "failed")}
    names = {"label": "family", "learning_rate": "rate", "warmup_steps": "warmup"}
    same = set() if any(plan.settings for plan in asked.families.values()) else {"scale", "warmup_steps"}
    same |= {name for name in ("running", "failed") if not total[name]}
    rows = [{names.get(name, name): value for name, value in row.items() if name not in same} for row in rows]
    part = [f"{total[name]} {name}" for name in ("running", "failed") if total[name]]
    missing = f"{total['missing']} missing" + (f" ({', '.join(part)})" if part else "")
    _print_table(f"{asked.name}: {total['done']} done, {missing}, {total['diverged']} diverged", rows)
    if part:
        owners = [claim.owner for claim in working]
        for owner in sorted(set(owners), key=lambda owner: owner.since):
            runs = _counted(owners.count(owner), "run")
            if owner.failed is None:
                typer.echo(f"{owner} measures {runs} since {owner.since}")
            else:
                typer.echo(f"{owner}: an error ended its {runs}: {owner.failed}")
    projections = load_projections(asked.backbone, asked.target_modules)
    if others := records_of_other_versions(asked, projections, load_records(folder) if folder.exists() else ()):
        typer.echo(f"Records of other versions of this study, which are not part of it: {len(others):,}")


@app.command()
def export(
    adapter_dir: Annotated[Path, typer.Argument(help="Folder of a saved CP adapter.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder for the new adapter; must be empty or not exist.")],
    to: Annotated[str, typer.Option(help="Format; only lora.")] = "lora",
    smallest_rank: Annotated[
        bool, typer.Option("--smallest-rank", help="No rank above a projection's shorter side; as exact, and smaller.")
    ] = False,
) -> None:
    """Convert a CP adapter to an exactly equal LoRA adapter.

    The LoRA adapter loads wherever PEFT does, without cpadapt. Its rank is the number of components.
    """
    from cpadapt.versions import require_versions

    if to != "lora":
        raise InputError(f"--to {to}: the only format is lora")
    require_versions()  # before the imports that another version would break

    from cpadapt.tuner.export import VLLM_RANKS, export_to_lora, ranks

    export_to_lora(adapter_dir, out_dir, smallest_rank=smallest_rank)
    found = ranks(out_dir)
    typer.echo(f"{out_dir}: a LoRA adapter equal to {adapter_dir}, of rank {found.largest}")
    if found.for_vllm is None:
        typer.echo(f"vLLM serves ranks up to {VLLM_RANKS[-1]}; this rank is higher")
    else:
        typer.echo(f"vLLM needs --max-lora-rank {found.for_vllm}")
    if found.above_shorter_side:
        typer.echo(
            f"{len(found.above_shorter_side)} projections, such as {found.above_shorter_side[0]}, have a shorter side"
            " below their rank: --smallest-rank writes a smaller adapter that is as exact",
            err=True,
        )


@app.command()
def backbone(
    name: Annotated[str, typer.Argument(help="A known name, such as smollm2, or a hub id.")],
    gguf: Annotated[
        Path | None, typer.Option(help="GGUF file to read, instead of the packages that carry it.")
    ] = None,
) -> None:
    """Prepare a backbone for use without a network.

    Prints where it is and where it came from.
    """
    from cpadapt.inputs.backbones.sources import prepare

    prepared = prepare(name, gguf)
    source = prepared.source
    typer.echo(f"{name}: {prepared.path}")
    typer.echo(f"from {source.kind} {source.name}, sha256 {source.sha256 or 'unknown'}")


@records_app.command("check")
def check_records(
    folder: Annotated[Path, typer.Argument(help="Folder of records, such as results, or one file.")],
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Move what is damaged into files *.damaged; its runs are then missing."),
    ] = False,
) -> None:
    """Look for damaged records. Each is named by file and line; the exit status is then 1."""
    from cpadapt.records.check import check

    checked = check(folder, set_aside=set_aside)
    for damage in checked.damaged:
        typer.echo(damage)
    counts = f"{_counted(checked.records, 'whole record')} in {_counted(checked.files, 'file')}"
    typer.echo(f"{folder}: {counts}, {len(checked.damaged)} damaged")
    if checked.damaged:
        if not set_aside:
            typer.echo("`cpadapt records check FOLDER --set-aside` moves what is damaged out of the way", err=True)
        sys.exit(1)


@records_app.command("migrate")
def migrate_records(
    folder: Annotated[Path, typer.Argument(help="Folder of records, such as results.")],
    data_dir: DataDir = None,
) -> None:
    """Convert the records of an earlier version of cpadapt. None is lost, and studies count them as done.

    With --data-dir the items' classes are added, which gives accuracy by class.
    """
    from cpadapt.records.migrate import migrate

    done = migrate(folder, data_dir)
    typer.echo(
        f"{folder}: {done.records} records, {done.converted} converted, {done.labelled} given their items' classes"
    )


def main() -> NoReturn:
    """Run the command line; a mistake is one line and exit status 2, and SIGTERM ends it with 143."""
    signal.signal(signal.SIGTERM, end)
    try:
        # A command returns None; an early exit, such as --help, returns its status.
        sys.exit(app(prog_name="cpadapt", standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except UsageError as error:
        _fail(_usage(error))
    except InputError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _without_extra(error)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))


def _usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx is not None else "cpadapt"
    if command == "cpadapt run" and getattr(error, "option_name", "") in TRY_OPTIONS:
        return (
            f"{error.option_name} is an option of `cpadapt try`, which takes no study file; edit the file or use --set"
        )
    return f"{error.format_message().rstrip('.')}; see {command} --help"


TRY_OPTIONS = ("--backbone", "--cell", "--seeds", "--learning-rate", "--steps")
"""Options of `cpadapt try` that replace a study file."""


def _not_in_a_bank() -> str:
    from cpadapt.families.peft_tuners import TUNERS

    names = ", ".join(TUNERS)
    return f"Not listed, because they don't fit a bank: PEFT's tuners {names}. A study trains them one by one."


def _start_at(projections: "tuple[Projection, ...]") -> str:
    """The scalars of the smallest adapter of each of PEFT's tuners."""
    from cpadapt.families import counting
    from cpadapt.families.peft_tuners import TUNERS

    costs = {name: counting.count(name, projections, counting.smallest(name)) for name in TUNERS}
    return "start, in scalars, at " + ", ".join(f"{name} {cost:,}" for name, cost in costs.items())


def _projection(out_features: int, in_features: int) -> "Projection":
    from cpadapt.inputs.backbones.specs import Projection

    if not (1 <= out_features <= MOST_FEATURES and 1 <= in_features <= MOST_FEATURES):
        raise InputError(
            f"{out_features}x{in_features} is not a valid projection: both must be from 1 to {MOST_FEATURES:,}"
        )
    return Projection("", out_features, in_features)


def _planned(
    backbone: str | None,
    target_modules: str | None,
    out_features: int | None,
    in_features: int | None,
    layers: int | None,
) -> "tuple[str, tuple[Projection, ...]]":
    """A title and the projections to plan for: those of a backbone, or those that the other options describe."""
    described = [value for value in (out_features, in_features, layers) if value is not None]
    if backbone is not None:
        if described:
            raise InputError("--out, --in and --layers are for a projection without a backbone; leave out --backbone")
        from cpadapt.inputs.backbones.projections import load_projections

        targets = None if target_modules is None else [name.strip() for name in target_modules.split(",")]
        if targets is not None and not all(targets):
            raise InputError(f"--target-modules {target_modules!r}: write names and commas, such as q_proj,v_proj")
        projections = load_projections(backbone, targets)
        return f"{backbone}: {_shapes(projections)}", projections
    if target_modules is not None:
        raise InputError("--target-modules chooses among the modules of a backbone; give --backbone")
    if out_features is None or in_features is None:
        missing = "both --out and --in" if not described else "--out" if out_features is None else "--in"
        raise InputError(f"give {missing}, or --backbone")
    layers = 1 if layers is None else layers
    if not 1 <= layers <= MOST_LAYERS:
        raise InputError(f"--layers {layers}: must be between 1 and {MOST_LAYERS:,}")
    projections = (_projection(out_features, in_features),) * layers
    return _shapes(projections), projections


MOST_LAYERS = 10_000
MOST_FEATURES = 100_000_000
"""Above what any model has."""


@dataclasses.dataclass(frozen=True)
class _Budget:
    """What an adapter may cost."""

    text: str
    """As it was given, with its unit."""
    limit: int
    cost: "Cost"
    """What an adapter costs, in the unit of the limit."""
    show: Callable[[int], str]
    """An amount in this unit, as text."""


def _budget(scalars: int | None, file_bytes: int | None, state_mib: float | None) -> _Budget:
    from cpadapt.families import counting

    given = {}
    if scalars is not None:
        given["--budget"] = _Budget(f"{scalars:,} scalars", scalars, counting.count, "{:,} scalars".format)
    if file_bytes is not None:
        given["--file-bytes"] = _Budget(f"{file_bytes:,} bytes", file_bytes, counting.file_bytes, "{:,} bytes".format)
    if state_mib is not None:
        limit = int(state_mib * 2**20)
        given["--state-mib"] = _Budget(f"{state_mib:g} MiB of state", limit, counting.adam_bytes, _mib)
    if not given:
        raise InputError("give a budget: --budget, --file-bytes or --state-mib")
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: give one budget")
    return next(iter(given.values()))


def _mib(size: int) -> str:
    """A positive number of bytes in MiB, with three significant digits."""
    amount = size / 2**20
    return f"{amount:,.{max(0, 2 - math.floor(math.log10(amount)))}f} MiB"


def _ad_hoc(backbone: str, task: str, cells: list[str], seeds: str, rates: list[str], steps: int | None) -> "Study":
    """The study of the runs that the command line names."""
    from cpadapt.families import FAMILIES
    from cpadapt.families.peft_tuners import TUNERS
    from cpadapt.records.config import HEAD, Protocol
    from cpadapt.study import FamilyPlan, Ladder, Study, seeds_of

    known = [*FAMILIES, *TUNERS]
    sizes: dict[str, list[int]] = {}
    head = False
    for text in cells:
        name, _, size = text.rpartition(":")
        if text == HEAD:
            head = True
        elif name in known and (count := whole(size)) is not None and count > 0:
            sizes.setdefault(name, []).append(count)
        else:
            hint = "" if name in known else did_you_mean(name or text, [*known, HEAD])
            raise InputError(
                f"--cell {text}{hint}: write FAMILY:SIZE, such as cp:21, or {HEAD}; families are {', '.join(known)}"
            )
    by_family: dict[str, list[float]] = {}
    for text in rates:
        name, _, rate = text.partition("=")
        if name not in sizes or not _is_rate(rate):
            raise InputError(
                f"--learning-rate {text}: write FAMILY=RATE with a family among the cells, such as cp=2e-4"
            )
        by_family.setdefault(name, []).append(float(rate))
    steps = Protocol().steps if steps is None else steps
    if steps < 1:
        raise InputError(f"--steps {steps}: must be a positive integer")
    return Study(
        name="ad-hoc",
        backbone=backbone,
        tasks=(task,),
        ladder=Ladder(head=head, sizes={name: tuple(s) for name, s in sizes.items()}),
        seeds=seeds_of(seeds),
        families={
            name: FamilyPlan(learning_rates=tuple(by_family[name]) if name in by_family else None)
            for name in sizes or FAMILIES
        },
        protocol=Protocol(steps=steps, eval_every=steps // 5 if steps % 5 == 0 else steps),
    )


def _is_rate(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _setting(text: str) -> tuple[str, Any]:
    from cpadapt.records.config import Protocol

    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: write NAME=VALUE, such as batch_size=16")
    fields = [field.name for field in dataclasses.fields(Protocol)]
    if name not in fields:
        hint = did_you_mean(name, fields)
        raise InputError(f"--set {text}: the protocol has no field {name!r}{hint}; it has {', '.join(fields)}")
    if value == "none":  # TOML has no null
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except UNPARSABLE:  # a text, which needs no quotes here
        return name, value


def _shapes(projections: "tuple[Projection, ...]") -> str:
    shapes = [f"{p.out_features}x{p.in_features}" for p in projections]
    return ", ".join(f"{shapes.count(shape)} of {shape}" for shape in dict.fromkeys(shapes))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # The table is narrow, and too wide cells are folded rather than cut, so that no number is lost.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, value in (rows[0] if rows else {}).items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        shown = (f"{v:,}" if isinstance(v, int) else "" if v is None else str(v) for v in row.values())
        table.add_row(*map(Text, shown))
    console = Console()
    console.print(Text(title))
    console.print(table)
