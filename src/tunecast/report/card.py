"""The model card: a README in Hugging Face's form that says what the model is and how it was chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunecast.records import ZERO_SHOT, Run, SessionRecord
from tunecast.report.loading import Delivery, delivery
from tunecast.report.numbers import MISSING, decimal, duration, finite, with_interval
from tunecast.report.tables import data_facts, hardware_facts, score_cells, tokens_trained_on, version_facts
from tunecast.report.wording import value_text, verdict
from tunecast.search import GIVEN


def model_card(record: SessionRecord, run: Run, *, base_model: str) -> str:
    """Write the README.md of a delivered model: YAML front matter, then Markdown.

    Args:
        record: The outcome of the session that delivered it.
        run: The run of the delivered model.
        base_model: The base model as the user named it: hub id, folder, GGUF file, or alias.
    """
    given = delivery(run, base_model)
    sections = [
        _front_matter(record, run, given),
        f"# {_plain(given.base_model)} finetuned on {_plain(record.task.dataset)}",
        _summary(record, run, given),
        _scores(record),
        _loading(given),
        _hyperparameters(run),
        "## Data\n\n" + _facts(data_facts(run)),
        _training(record, run),
        _limits(record, given),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(record: SessionRecord, run: Run, given: Delivery) -> str:
    import yaml

    decoder = run.model.architecture == "decoder-only"
    values: dict[str, Any] = {
        "library_name": given.library,
        "base_model": given.base_model,
        "pipeline_tag": "text-generation" if decoder else "text2text-generation",
        "tags": ["tunecast", "finetuning", run.pipeline.method],
    }
    if given.adapter:
        values["base_model_relation"] = "adapter"
    elif run.pipeline.method != ZERO_SHOT.method:
        values["base_model_relation"] = "finetune"
    metrics = [record.objective] if record.objective != "loss" else []
    if metrics:
        values["metrics"] = metrics
    return "---\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True) + "---"


def _summary(record: SessionRecord, run: Run, given: Delivery) -> str:
    kind = "An adapter" if given.adapter else "A whole model"
    if run.pipeline.method == ZERO_SHOT.method:
        kind = "The untouched base model"
    words = verdict(record, [run])
    chosen = "The loss" if record.objective == "loss" else record.objective
    # The last sentence counts trials, which needs all runs; the card says its cost under "Training".
    outcome = "\n".join(f"- {_plain(sentence)}" for sentence in words.sentences[:-1])
    rivals = "zero-shot" if record.strategy == GIVEN else "zero-shot and the baseline"
    return (
        f"{kind} for {_plain(given.base_model)}, made by Tunecast. **{chosen}** on the validation "
        f"split chose among the checkpoints that led by loss, at most three; on the test split, which no "
        f"trial saw, the best was then compared with {rivals}.\n\n"
        f"**{_plain(words.text)}.**\n\n{outcome}"
    )


def _scores(record: SessionRecord) -> str:
    if not record.contenders:
        return ""
    header, rows = score_cells(record, with_interval)
    for contender, row in zip(record.contenders, rows, strict=True):
        if contender.name == record.winner:
            row[0] = f"**{row[0]}** (this model)"
    examples = record.contenders[0].test.examples
    return f"## Scores\n\nOn {examples:,} test examples; brackets hold 95% bootstrap intervals.\n\n" + _table(
        header, rows
    )


def _loading(given: Delivery) -> str:
    if not given.adapter:
        note = "The folder is complete; no network is needed."
    elif given.bundled_base:
        note = "The base model lies in `base/` beside the adapter; no network is needed."
    else:
        note = (
            f"The base model `{_plain(given.base_model)}` must be at hand, in a folder or in the hub's cache."
        )
    return f"## Load it\n\n{note}\n\n```python\n{given.code('.')}\n```"


def _hyperparameters(run: Run) -> str:
    if not run.pipeline.hyperparameters:
        return ""
    rows = [[f"`{name}`", value_text(name, value)] for name, value in run.pipeline.hyperparameters.items()]
    return f"## Pipeline\n\nMethod: **{_plain(run.pipeline.method)}**.\n\n" + _table(
        ["hyperparameter", "value"], rows
    )


def _training(record: SessionRecord, run: Run) -> str:
    seconds = sum(point.training.wall for point in run.curve)
    best = run.best_point
    pairs = {
        "tokens seen by the checkpoint": tokens_trained_on(record.find_contender(record.winner), run),
        "full length of the schedule": f"{run.full_length_tokens:,} tokens, {run.total_steps:,} steps",
        "training time of this run": duration(seconds),
        "budget of the session": f"{record.budget}, {duration(record.used_seconds)} used",
        "best validation loss": decimal(best.validation.loss) if best else MISSING,
        "trainable parameters": f"{run.trainable_parameters:,}",
        "frozen weights and compute": run.dtype,
        "seed": str(run.seed),
        "session": f"{record.id}, strategy {record.strategy}",
        "run": run.id,
    }
    return "## Training\n\n" + _facts(pairs | hardware_facts(run.machine) | version_facts(record))


def _limits(record: SessionRecord, given: Delivery) -> str:
    lines = [
        "It was judged on one dataset; elsewhere it may be worse than its base model.",
        "It inherits the licence, the limits and the biases of its base model.",
    ]
    if any(finite(one.test.loss_low) is None for one in record.contenders):
        lines.append("Some scores come without an interval: their uncertainty was not measured.")
    if given.adapter and not given.bundled_base:
        lines.append("The adapter fits only the exact base model that it was trained on.")
    return "## Limits and warnings\n\n" + "\n".join(
        f"- {_plain(line)}" for line in (*lines, *record.warnings)
    )


def _facts(pairs: Mapping[str, str]) -> str:
    return _table(["", ""], [[name, value] for name, value in pairs.items()])


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text that can neither end its line nor open an HTML element."""
    return re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").strip()
