"""The command line. Mistakes end with one line and exit status 2, before anything is trained."""

import dataclasses
import json
import math
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpadapt.errors import InputError, explain
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.loading import load_projections
from cpadapt.inputs.backbones.sources import prepare
from cpadapt.inputs.backbones.specs import BACKBONES, Projection
from cpadapt.measure import status, train
from cpadapt.records.config import HEAD, Protocol
from cpadapt.records.migrate import migrate
from cpadapt.records.store import load_records
from cpadapt.study import FamilyPlan, Ladder, Shard, Study, load_study, seeds_of, with_protocol
from cpadapt.tuner import export_to_lora

app = typer.Typer(
    help="How small can an adapter be, and how sure are we? CP and LoRA at every parameter budget.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What a wrong option, argument or command raises; versions of typer differ in the module that holds it."""


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no integer") from None


records_app = typer.Typer(help="Look after folders of records.")
app.add_typer(records_app, name="records")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with TASK/SPLIT.jsonl(.xz), instead of the model hub.")]


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
    """What one more rank or component costs on a projection of OUT x IN.

    Example: cpadapt steps 2048 2048
    """
    if min(out_features, in_features) < 1:
        raise InputError(f"{out_features}x{in_features} is no projection: both must be positive")
    rows = counting.step_rows(Projection("", out_features, in_features))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        refused = row.get("not applicable") is not None
        tensors = {} if refused else FAMILIES[row["family"]].shapes(out_features, in_features, 1)
        row["a unit's tensors"] = " + ".join(f"{math.prod(shape):,}" for shape in tensors.values())
    _print_table(f"{out_features} x {in_features}", rows)


@app.command()
def plan(
    backbone: Annotated[str, typer.Option(help="A known name, a hub id or a local folder.")],
    budget: Annotated[
        int, typer.Option(metavar="N", parser=_integer, help="Trainable scalars over all target modules.")
    ],
    as_json: AsJson = False,
) -> None:
    """For every family the largest adapter at or under a budget.

    Example: cpadapt plan --backbone smollm2 --budget 57600
    """
    projections = load_projections(backbone)
    offers = counting.rows(counting.plan(projections, budget))
    if as_json:
        _print_json(offers)
        return
    for offer in offers:
        state = offer.pop("adam_bytes")
        offer["Adam's state"] = None if state is None else f"{state / 2**20:.3f} MiB"
    _print_table(f"{backbone}: {_shapes(projections)}; budget {budget:,}", offers)


@app.command()
def run(
    study: Annotated[Path | None, typer.Argument(help="A study file, such as studies/smollm2-pilot.toml.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task; without a study, the task.")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", parser=_integer, help="Only the cells at this budget.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only the I-th of N parts.")] = "1/1",
    backbone: Annotated[str | None, typer.Option(help="Without a study: what is adapted.")] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(metavar="FAMILY:SIZE", help="Without a study: lora:4, cp:21 or head; repeat."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Without a study: such as 0-2 or 0,3,7 (default: 0).")] = None,
    learning_rate: Annotated[
        list[str] | None, typer.Option(metavar="FAMILY=RATE", help="Without a study; repeat.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=_integer, help="Without a study: optimizer steps; evaluated every fifth of them."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another value for a field of the protocol; repeat."),
    ] = None,
    data_dir: DataDir = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of records (default: results/NAME-OF-THE-STUDY).")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep each run's best weights here, as PEFT adapters.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again what has a record.")] = False,
    device: Annotated[str | None, typer.Option(help="As torch names it (default: the first GPU, or the CPU).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Measure a study, a part of one, or runs named here; what has a record is not trained again.

    Examples:

    cpadapt run studies/smollm2-pilot.toml --task rte --data-dir DATA

    cpadapt run --backbone minilm --task toy-sentiment --cell lora:1 --cell cp:9 --seeds 0-2 --steps 500
    --learning-rate cp=4e-3 --results results/try
    """
    if study is not None:
        given = {
            "--backbone": backbone, "--cell": cell, "--seeds": seeds,
            "--learning-rate": learning_rate, "--steps": steps,
        }  # fmt: skip
        if named := [name for name, value in given.items() if value not in (None, [])]:
            raise InputError(f"{named[0]} goes without a study file; with one, edit it or pass --set")
        asked = load_study(study)
    else:
        if backbone is None or task is None or results is None or not cell:
            raise InputError("give a study file, or --backbone, --task, --cell and --results")
        asked = _ad_hoc(backbone, task, cell, "0" if seeds is None else seeds, learning_rate or [], steps)
    if set_:
        asked = with_protocol(asked, **dict(_setting(text) for text in set_))
    folder = results or Path("results") / asked.name
    before = {(r.id, r.provenance.finished) for r in load_records(folder)} if folder.exists() else set()
    records = train(
        asked,
        task=task,
        budget=budget,
        shard=Shard.parse(shard),
        data_dir=data_dir,
        results=folder,
        save=save,
        force=force,
        device=device,
        quiet=quiet,
    )
    judged = [r for r in records if r.best is not None]
    diverged = sum(r.diverged_at is not None for r in records)
    trained = sum((r.id, r.provenance.finished) not in before for r in records)
    # What tells runs of one cell apart.
    shown = ["seed"] + ["data_seed"] * (len(asked.data_seeds) > 1) + ["order_seed"] * bool(asked.order_seeds)
    if any(plan.settings for plan in asked.families.values()):
        shown = ["scale", "warmup_steps", *shown]
    _print_table(
        f"{asked.name}: {trained} trained, {len(records) - trained} on record before; {diverged} diverged",
        [
            {
                "task": r.config.task,
                "family": r.label,
                "size": r.config.size,
                "parameters": r.counts.adapter,
                "rate": r.config.learning_rate,
                **{name.removesuffix("_steps").replace("_", " "): getattr(r.config, name) for name in shown},
                "best step": r.best_step,
                "dev": f"{r.best.dev_accuracy:.3f}" if r.best else "",
                "eval": f"{r.outcome.accuracy:.3f}" if r.outcome else "",
            }
            for r in judged
        ],
    )


@app.command("status")
def show_status(
    study: Annotated[Path, typer.Argument(help="A study file.")],
    results: Annotated[
        Path | None, typer.Option(help="Folder of records (default: results/NAME-OF-THE-STUDY).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which cells of a study are done, missing or diverged."""
    asked = load_study(study)
    rows = [dataclasses.asdict(s) for s in status(asked, results or Path("results") / asked.name)]
    if as_json:
        _print_json(rows)
        return
    total = {name: sum(row[name] for row in rows) for name in ("done", "missing", "diverged")}
    names = {"label": "family", "learning_rate": "rate", "warmup_steps": "warmup"}
    same = set() if any(plan.settings for plan in asked.families.values()) else {"scale", "warmup_steps"}
    rows = [{names.get(name, name): value for name, value in row.items() if name not in same} for row in rows]
    _print_table(f"{asked.name}: {total['done']} done, {total['missing']} missing, {total['diverged']} diverged", rows)


@app.command()
def export(
    adapter_dir: Annotated[Path, typer.Argument(help="A saved CP adapter.")],
    out_dir: Annotated[Path, typer.Argument(help="Where the new adapter shall be; must be empty or new.")],
    to: Annotated[str, typer.Option(help="The format; only lora.")] = "lora",
) -> None:
    """Write the exactly equal plain LoRA adapter, which needs PEFT alone."""
    if to != "lora":
        raise InputError(f"--to {to}: the only format is lora")
    export_to_lora(adapter_dir, out_dir)
    typer.echo(f"{out_dir}: a LoRA adapter equal to {adapter_dir}")


@app.command()
def backbone(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(BACKBONES)}, or a hub id.")],
    gguf: Annotated[Path | None, typer.Option(help="Its GGUF file, instead of the packages that carry it.")] = None,
) -> None:
    """Get a backbone ready for use without a network, and say where it is and where it came from."""
    prepared = prepare(name, gguf)
    source = prepared.source
    typer.echo(f"{name}: {prepared.path}")
    typer.echo(f"from {source.kind} {source.name}, sha256 {source.sha256 or 'unknown'}")


@records_app.command("migrate")
def migrate_records(
    folder: Annotated[Path, typer.Argument(help="Folder of records, such as results.")],
    data_dir: DataDir = None,
) -> None:
    """Carry records of an earlier version over to this one: none is lost, and studies find them as done.

    With --data-dir the classes of the items asked are added, so that accuracy by class can be told.
    """
    done = migrate(folder, data_dir)
    typer.echo(
        f"{folder}: {done.records} records, {done.converted} carried over, {done.labelled} given their items' classes"
    )


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line and exit status 2."""
    try:
        # A command returns nothing; what ends it early, such as --help, gives its status.
        sys.exit(app(prog_name="cpadapt", standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except UsageError as error:
        _fail(_usage(error))
    except ValidationError as error:
        _fail(explain(error))
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))


def _usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx is not None else "cpadapt"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _fail(message: str) -> NoReturn:
    print(f"cpadapt: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _ad_hoc(backbone: str, task: str, cells: list[str], seeds: str, rates: list[str], steps: int | None) -> Study:
    """A study of the runs that the command line names."""
    sizes: dict[str, list[int]] = {}
    head = False
    for text in cells:
        name, _, size = text.partition(":")
        if text == HEAD:
            head = True
        elif name in FAMILIES and re.fullmatch(r"[1-9]\d*", size):
            sizes.setdefault(name, []).append(int(size))
        else:
            raise InputError(
                f"--cell {text}: write FAMILY:SIZE such as cp:21, or {HEAD}; families: {', '.join(FAMILIES)}"
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
        seeds=tuple(dict.fromkeys(seeds_of(seeds))),
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
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: write NAME=VALUE such as batch_size=16")
    fields = [field.name for field in dataclasses.fields(Protocol)]
    if name not in fields:
        raise InputError(f"--set {text}: the protocol has no field {name!r}; it has {', '.join(fields)}")
    if value == "none":  # which TOML cannot write
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _shapes(projections: tuple[Projection, ...]) -> str:
    shapes = [f"{p.out_features}x{p.in_features}" for p in projections]
    return ", ".join(f"{shapes.count(shape)} of {shape}" for shape in dict.fromkeys(shapes))


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    # Narrow, and folded rather than cut where it is still too wide: no figure may be lost.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, value in (rows[0] if rows else {}).items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        shown = (f"{v:,}" if isinstance(v, int) else "" if v is None else str(v) for v in row.values())
        table.add_row(*map(Text, shown))
    console = Console()
    console.print(Text(title))
    console.print(table)
