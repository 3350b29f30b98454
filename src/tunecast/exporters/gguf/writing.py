"""Writes a finetuned model as a GGUF file, and checks that llama.cpp computes with it what was finetuned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunecast import data
from tunecast.data.templates import end_of_answer
from tunecast.errors import DataError, ModelError
from tunecast.exporters.adapters import attach, check_mergeable, find_delivery, is_whole, merge_into_base
from tunecast.exporters.gguf import check, ollama, processes
from tunecast.exporters.gguf.libraries import check_runtime, converter_folder
from tunecast.exporters.gguf.model_files import add_sentencepiece, complete_config
from tunecast.exporters.gguf.tables import check_text
from tunecast.exporters.gguf.types import GgufType
from tunecast.exporters.new_folder import check_empty, new_folder
from tunecast.models.adapter import base_of
from tunecast.models.describe import describe
from tunecast.models.load import ResolvedModel, load_model, load_tokenizer, quiet, resolve
from tunecast.progress import Progress
from tunecast.records import ModelFacts

FLAG = "--to gguf"
CHECK_FILE = "check.json"


@dataclass(frozen=True)
class GgufJob:
    """What is written and how it is checked.

    Args:
        kind: Type of the weights.
        model: The base model of an adapter; else the whole model.
        adapter: Folder of the adapter; None for a whole model.
        base: The model before its finetuning; None if it is not known.
        tokenizer: The tokenizer of the finetuned model.
        examples: Examples to compare on; empty to write without a check.
        dataset: Their dataset's name.
        tolerance: Mean difference of a token's log-probability in nats; None for the type's own.
        for_ollama: Whether a Modelfile is written beside it.
        opening: Messages that were before every prompt in training.
    """

    kind: GgufType
    model: ResolvedModel
    adapter: Path | None
    base: ResolvedModel | None
    facts: ModelFacts
    tokenizer: Any
    examples: Sequence[data.Example]
    dataset: str
    tolerance: float | None
    for_ollama: bool = False
    opening: Sequence[data.Turn] = ()

    @property
    def is_text(self) -> bool:
        """Whether the examples are running text."""
        return bool(self.examples) and self.examples[0].turns[-1].role == "text"

    @property
    def stop(self) -> str:
        """The token that ends an answer."""
        return str(self.tokenizer.eos_token) if self.is_text else end_of_answer(self.tokenizer)


@dataclass(frozen=True)
class GgufExport:
    """A written GGUF file.

    Args:
        file: The file.
        check: What its check found; None if it was not checked.
        modelfile: The file for Ollama; None if it was not asked for.
    """

    file: Path
    check: check.GgufCheck | None
    modelfile: Path | None = None


def prepare(
    source: str,
    kind: GgufType,
    *,
    model: str | None,
    dataset: data.Dataset | None,
    tolerance: float | None,
    for_ollama: bool = False,
    opening: Sequence[data.Turn] = (),
) -> GgufJob:
    """Find everything that an export needs, before anything is computed.

    Args:
        source: A session's folder, an adapter's folder, or a model.
        model: The base model; None for the adapter's own.
        dataset: Whose validation examples are compared; None to write without a check.
        opening: Messages that were before every prompt in training.

    Raises:
        ConfigurationError: A library is missing, or the adapter cannot be merged.
        ModelError: The model or its tokenizer cannot be found, or it is no decoder.
    """
    converter_folder()
    if not kind.by_converter:
        check_runtime(f"--quantise {kind.name}", "f16 and q8_0 are written without it.")
    if dataset is not None:
        check_runtime("The check of the exported model", "--no-check writes the file without it.")
    whole, adapter = _parts(source, model)
    facts = describe(whole)
    if facts.architecture != "decoder-only":
        raise ModelError(
            f"{FLAG}: {whole.name} is an encoder-decoder; only decoders are exported.", "Use --merge."
        )
    own = adapter if adapter and (adapter / "tokenizer_config.json").is_file() else None
    tokenizer = load_tokenizer(ResolvedModel(whole.name, str(own), is_local=True) if own else whole)
    base = whole if adapter else resolve(model) if model else None
    examples = (dataset.validation or dataset.train)[: 2 * check.EXAMPLES] if dataset else ()
    name = dataset.name if dataset else ""
    return GgufJob(
        kind, whole, adapter, base, facts, tokenizer, examples, name, tolerance, for_ollama, opening
    )


def _parts(source: str, model: str | None) -> tuple[ResolvedModel, Path | None]:
    """Return the base model and the adapter's folder, or the whole model and None."""
    if not Path(source).is_dir():
        return resolve(source), None
    delivered = find_delivery(FLAG, Path(source))
    if is_whole(delivered):
        return resolve(str(delivered)), None
    check_mergeable(FLAG, delivered)
    return resolve(model or base_of(delivered)), delivered


def write(job: GgufJob, folder: Path, progress: Progress) -> GgufExport:
    """Write ``model-TYPE.gguf``, ``check.json`` if it is checked, and ``Modelfile`` for Ollama.

    Raises:
        ConfigurationError: The adapter cannot be merged.
        ModelError: llama.cpp does not know the model, or computes something else with it.
        OutputError: The folder cannot be written, or holds something.
    """
    check_empty(folder)
    name = f"model-{job.kind.name}.gguf"
    served = ""
    if job.for_ollama:
        served = ollama.modelfile(name, job.tokenizer, job.stop, is_text=job.is_text, opening=job.opening)
    samples = _samples(job) if job.examples else None
    with new_folder(folder) as unfinished:
        file = unfinished / name
        found = _export(job, job.model, job.adapter, file, samples, progress)
        checked = _checked(job, found, unfinished, samples, progress) if found and samples else None
        if checked is not None:
            text = json.dumps(asdict(checked), indent=2)
            (unfinished / CHECK_FILE).write_text(text + "\n", encoding="utf-8")
        if served:
            (unfinished / ollama.MODELFILE).write_text(served, encoding="utf-8")
    return GgufExport(folder / name, checked, folder / ollama.MODELFILE if served else None)


def _samples(job: GgufJob) -> check.Samples:
    longest = min(check.LONGEST, job.facts.context or check.LONGEST)
    architecture = job.facts.architecture
    try:
        encoded = data.encode(job.examples, job.tokenizer, max_length=longest, architecture=architecture)
    except DataError as error:
        raise DataError(
            f"The check reads at most {longest} tokens of an example: {error.what}",
            "Use --no-check to export without it.",
        ) from None
    kept = data.kept_examples(job.examples, encoded)
    return check.samples_of(kept[: check.EXAMPLES], encoded[: check.EXAMPLES], job.tokenizer, job.stop)


def _checked(
    job: GgufJob, found: _Exported, folder: Path, samples: check.Samples, progress: Progress
) -> check.GgufCheck:
    """Compare the base model in the same way, and refuse what llama.cpp computes otherwise.

    Raises:
        ModelError: It does.
    """
    base = None
    if job.base is not None:
        file = folder / "base.gguf"
        base = _export(job, job.base, None, file, samples, progress)
        file.unlink()
    checked = check.GgufCheck(
        dataset=job.dataset,
        type=job.kind.name,
        finetuned=found.difference,
        base=base.difference if base else None,
        learned=check.mean_change(found.scores, base.scores) if base else None,
        learned_there=check.mean_change(found.measured, base.measured) if base else None,
        prompts_alike=check.prompts_alike(found.measured, samples, begin=job.tokenizer.bos_token_id),
        ends=found.measured.ends,
        stop=samples.stop_text,
    )
    if refused := check.reason_to_refuse(checked, job.kind, job.tolerance):
        progress.log(check_text(checked))
        what, hint = refused
        raise ModelError(f"{FLAG}: nothing was written, because the check failed: {what}", hint)
    return checked


@dataclass(frozen=True)
class _Exported:
    scores: check.Scores
    measured: processes.Measured
    difference: check.Difference


def _export(
    job: GgufJob,
    model: ResolvedModel,
    adapter: Path | None,
    file: Path,
    samples: check.Samples | None,
    progress: Progress,
) -> _Exported | None:
    """Write a model as a GGUF file, and compare it on the samples if there are some."""
    name = f"{model.name} with its adapter" if adapter else model.name
    progress.start(f"Exporting {name} as {job.kind.name}")
    saved = file.with_suffix(".model")
    scores = _save(job, model, adapter, saved, samples)
    _to_gguf(saved, file, job.kind)
    shutil.rmtree(saved)
    progress.finish()
    if samples is None or scores is None:
        return None
    progress.start(f"Checking {name} in llama.cpp")
    measured = processes.measure(file, samples.sequences, samples.prompts, samples.stop)
    progress.finish()
    return _Exported(scores, measured, check.difference(scores, measured, samples))


def _save(
    job: GgufJob,
    model: ResolvedModel,
    adapter: Path | None,
    folder: Path,
    samples: check.Samples | None,
) -> check.Scores | None:
    """Save a model in float32, its adapter merged; score it first, as it was trained."""
    import torch

    loaded = load_model(model, dtype=torch.float32, device="cpu")
    if adapter is not None:
        loaded = attach(FLAG, loaded, adapter, model.name)
    scores = check.score(loaded, samples) if samples else None
    if adapter is not None:
        loaded = merge_into_base(FLAG, loaded, model.name)
    with quiet():
        loaded.save_pretrained(folder)
    job.tokenizer.save_pretrained(folder)
    complete_config(folder)
    add_sentencepiece(folder, job.tokenizer, [adapter, model.location])
    return scores


def _to_gguf(model: Path, file: Path, kind: GgufType) -> None:
    if kind.by_converter:
        processes.convert(model, file, kind.name)
        return
    whole = file.with_suffix(".f32.gguf")
    processes.convert(model, whole, "f32")
    processes.quantise(whole, file, kind)
    whole.unlink()
