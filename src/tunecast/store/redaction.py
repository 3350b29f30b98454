"""Redacts runs for export: no path, host, user name, error text or dataset text remains.

Only listed fields are kept, so a field that a later version adds is not shared until it is listed here or in
:mod:`~tunecast.store.export_allowlist`. Single words that name a dataset, a model, a method or a metric are
kept: a folder named after a person is shared under that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from tunecast.records import (
    GUARDS,
    DatasetFacts,
    Machine,
    ModelFacts,
    Published,
    Score,
    Versions,
    stable_hash,
)
from tunecast.store.export_allowlist import (
    CONFIG_NUMBERS,
    CONFIG_PARTS,
    CONFIG_WORDS,
    HYPERPARAMETER_NUMBERS,
    HYPERPARAMETER_WORDS,
    ORGANISATIONS,
)
from tunecast.store.rows import Row, RunRows, facts_row, record
from tunecast.store.schema import points

_NUMBERS = (
    *("seed", "full_length_tokens", "total_steps", "unique_examples", "max_length"),
    *("trainable_parameters", "exclusive", "created_at"),
)
_HASHES = ("id", "validation_hash")
_WORDS = ("metric", "method", "dtype", "outcome")
_VERSIONS = tuple(field.name for field in fields(Versions))
_SPLITS = ("train", "validation", "test")
# Facts of a dataset that tunecast.data collects. Counts from elsewhere may have text of the dataset as keys.
_DATASET_FACTS = {
    "tokens",
    *("version", "histogram_edges", "examples", "sampled_examples", "empty_rows", "tokenizer_vocabulary"),
    *("sizes", "prompt", "completion", "copied", "completions", "prompts", "conversation", "shared_prompts"),
    "dependence",
}
# The position of a run in its plan, and numbers from a Trainer's record.
_EXTRA_NUMBERS = {
    *("number", "shared", "test_tokens", "retrained_tokens", "held_bytes", "devices"),
    *("epochs", "train_loss", "log_digests", "arguments_digest"),
}
# The source of an imported run and its unknown fields; the unit of token counts.
_EXTRA_WORDS = {"source", "unknown", "inferred", "purpose", "metric_error"}
_FACT_WORDS = {"token_unit"}
_MODEL_WORDS = ("family", "architecture")
_POINT_NUMBERS = tuple(
    column.name for column in points.columns if column.name not in ("run_id", "checkpoint_hash")
)

# A word of a program, such as a metric's module:function. Words have no dots, because names of hosts do.
_WORD = re.compile(r"[A-Za-z0-9_+-]{1,80}(:[A-Za-z0-9_]{1,40})?")
# A version of Python or of a package: 2.13.0+cpu, 5.0.0.dev0, 3.14.0rc1, 0.1.0.dev3+g1a2b3c.d20260101.
_VERSION = re.compile(
    r"[0-9]{1,8}(\.([0-9][0-9a-z]{0,9}|(dev|post)[0-9]{1,9})){1,4}(\+([0-9a-z]{1,20}(\.[a-z]{0,4}[0-9]{1,9}){0,2})?)?"
)
# Words of a program joined by commas, or a version.
_SHORT_WORD = re.compile(rf"[A-Za-z0-9_,-]{{1,80}}|{_VERSION.pattern}")
# Words of a unit, a device or a licence: nats per token, A100 80GB, Apache-2.0, CC BY-SA 4.0.
_PHRASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*([ .](?=[0-9])[0-9][A-Za-z0-9_+-]*| [A-Za-z0-9_+-]+){0,5}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NUMERIC = re.compile(r"-?[0-9.e+-]{1,32}")
_CONFIG = CONFIG_NUMBERS | CONFIG_WORDS
_HYPERPARAMETERS = HYPERPARAMETER_NUMBERS | HYPERPARAMETER_WORDS
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,79}")
# A dot is allowed only before a number or a kind of quantisation (Qwen2.5-0.5B, phi-1.5, colours.v2, x.Q4_1),
# and not in names of digits and dots only, because those may be addresses of hosts.
_PLAIN_NAME = re.compile(
    r"(?!.{81})(?![0-9.]*\.[0-9.]*$)[A-Za-z0-9_]([A-Za-z0-9_+-]|\.(?=[0-9]|v[0-9]|I?Q[0-9]|B?F[0-9]))*"
)
_HASHED_NAME = re.compile(r"[0-9a-f]{12}")


def shareable(rows: RunRows, known: dict[str, Row]) -> RunRows:
    """Keep only the listed parts of a run; its facts get new hashes.

    ``known`` caches redacted facts by their old hashes, because thousands of runs share a few facts.
    """
    old = rows.run
    facts: dict[str, Row] = {}
    for column, keep in _FACTS.items():
        given = rows.facts[column]
        if given["hash"] not in known:
            known[given["hash"]] = facts_row(keep(given["facts"]))
        facts[column] = known[given["hash"]]
    run: Row = {name: old[name] for name in _NUMBERS}
    run |= {name: _word(old[name]) for name in _WORDS}
    run |= {name: _hash(old[name]) for name in _HASHES}
    run |= {name: shared_name(old[name]) for name in ("dataset", "model")}
    run |= {name: row["hash"] for name, row in facts.items()}
    run |= {
        "session": shared_session(old["session"]),
        "hyperparameters": _hyperparameters(old["hyperparameters"]),
        "versions": {name: _version(old["versions"].get(name, "")) for name in _VERSIONS},
        "error_kind": None if old["error_kind"] is None else _word(old["error_kind"]) or "Error",
        "error_text": None,
        "validation": _score(old["validation"]),
        "test": _score(old["test"]),
        "published": _published(old["published"]),
        "extra": _chosen_numbers(old["extra"])
        | _chosen_words(old["extra"], _EXTRA_WORDS)
        | _guards(old["extra"]),
    }
    return RunRows(run, facts, tuple(_point(point, run["id"]) for point in rows.points))


def _dataset(facts: Mapping[str, Any]) -> DatasetFacts:
    return DatasetFacts(
        name=shared_name(facts["name"]),
        format=_word(facts["format"]),
        fingerprint=_hash(facts["fingerprint"]),
        examples={split: count for split, count in facts["examples"].items() if split in _SPLITS},
        facts=_facts(facts["facts"]),
        meta_features=_numbers(facts["meta_features"]),
        meta_features_version=facts["meta_features_version"],
    )


def _facts(facts: Mapping[str, Any]) -> Row:
    kept: Row = _numbers({name: value for name, value in facts.items() if name in _DATASET_FACTS})
    return kept | _chosen_words(facts, _FACT_WORDS)


def _model(facts: Mapping[str, Any]) -> ModelFacts:
    given = {field.name for field in fields(ModelFacts)} - {"name", "config", "weights_hash", *_MODEL_WORDS}
    kept: Row = {name: facts[name] for name in given if _is_number(facts.get(name, ""))}
    kept |= {name: _word(facts[name]) for name in _MODEL_WORDS}
    kept |= {"name": shared_name(facts["name"]), "weights_hash": _hash(facts["weights_hash"])}
    return record(ModelFacts, kept | {"config": _config(facts["config"])})


def _machine(facts: Mapping[str, Any]) -> Machine:
    given = {field.name for field in fields(Machine)} - {"device"}
    kept: Row = _numbers({name: facts[name] for name in given})
    return record(Machine, kept | {"device": _word(facts["device"])})


_FACTS: dict[str, Callable[[Mapping[str, Any]], DatasetFacts | ModelFacts | Machine]] = {
    "dataset_hash": _dataset,
    "model_hash": _model,
    "machine_hash": _machine,
}


def shared_session(name: str) -> str:
    """Hash a session's name for export, because it may be the name of a folder or a person.

    A name that is such a hash already is kept, so exporting an export changes nothing.
    """
    return name if _HASHED_NAME.fullmatch(name) else stable_hash(name, 12)


def shared_name(name: str) -> str:
    """Return the name of a dataset or a model for an export.

    A single word is kept, and so is a hub id of a well-known organisation. Anything else becomes a hash:
    ``data/secret`` and ``/home/somebody`` look like hub ids and names, but are paths, and ``box.example.com``
    is a host.
    """
    organisation, slash, rest = name.rpartition("/")
    allowed = _HUB_NAME if organisation in ORGANISATIONS else _PLAIN_NAME
    is_public = not slash or organisation in ORGANISATIONS
    return name if not name or (is_public and allowed.fullmatch(rest)) else stable_hash(name, 12)


def _score(score: Mapping[str, Any] | None) -> Row | None:
    if score is None:
        return None
    kept = {field.name: score.get(field.name) for field in fields(Score)}
    return kept | {"metric_name": _metric(score.get("metric_name", ""))}


def _published(told: Mapping[str, Any] | None) -> Row | None:
    """Keep numbers, units, licences and devices; names of tables and sources as names of models are."""
    if told is None:
        return None
    kept: Row = {field.name: told.get(field.name) for field in fields(Published)}
    kept |= {name: shared_name(told[name]) for name in ("table", "source", "tokenizer")}
    kept |= {name: told[name] if _PHRASE.fullmatch(told[name]) else "" for name in ("unit", "device")}
    kept["licence"] = (
        told["licence"] if _PHRASE.fullmatch(told["licence"]) else stable_hash(told["licence"], 12)
    )
    kept |= {
        "commit": _hash(told["commit"]),
        "task_kind": _word(told["task_kind"]),
        "variant": _word(told["variant"]),
    }
    kept["setup"] = {
        name: value for name, value in told["setup"].items() if _is_key(name) and _may_be(value, text=True)
    }
    return kept


def _point(row: Row, run_id: str) -> Row:
    kept = {name: row[name] for name in _POINT_NUMBERS}
    kept["validation_metric_name"] = _metric(row["validation_metric_name"])
    return kept | {"run_id": run_id, "checkpoint_hash": ""}


def _config(config: Mapping[str, Any]) -> Row:
    kept: Row = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            if name in CONFIG_PARTS:
                kept[name] = _config(value)
        elif isinstance(value, (list, tuple)):
            if name in _CONFIG:
                kept[name] = [inner for inner in value if _may_be(inner, text=name in CONFIG_WORDS)]
        elif name in _CONFIG and _may_be(value, text=name in CONFIG_WORDS):
            kept[name] = value
    return kept


def _hyperparameters(values: Mapping[str, Any]) -> Row:
    """Keep the listed hyperparameters; a list of module names counts as one word."""
    return {
        name: value
        for name, value in values.items()
        if name in _HYPERPARAMETERS and _may_be(value, text=name in HYPERPARAMETER_WORDS)
    }


def _may_be(value: Any, *, text: bool) -> bool:
    """Whether a value is a number, or a short word if text is permitted."""
    return _is_number(value) or (text and isinstance(value, str) and bool(_SHORT_WORD.fullmatch(value)))


def _numbers(value: Any) -> Any:
    """Keep only numbers: alone, in lists, and in mappings whose keys are identifiers or numbers."""
    if isinstance(value, Mapping):
        kept = {name: _numbers(inner) for name, inner in value.items() if _is_key(name)}
        return {name: inner for name, inner in kept.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [inner for inner in map(_numbers, value) if inner is not None]
    return value if _is_number(value) else None


def _chosen_numbers(extra: Mapping[str, Any]) -> Row:
    """Keep the listed extra numbers of a run, and lists of them."""
    listed = {name: extra[name] for name in extra if name in _EXTRA_NUMBERS}
    kept: Row = _numbers({name: value for name, value in listed.items() if not isinstance(value, Mapping)})
    return kept


def _guards(extra: Mapping[str, Any]) -> Row:
    """Keep what is recorded of guards: numbers, the names as of datasets, and hashes."""
    texts = {"guard": shared_name, "examples_hash": _hash}
    kept = [
        _numbers(entry) | {name: keep(entry[name]) for name, keep in texts.items() if name in entry}
        for entry in extra.get(GUARDS, ())
    ]
    return {GUARDS: kept} if kept else {}


def _chosen_words(values: Mapping[str, Any], names: set[str]) -> Row:
    """Keep the values under ``names`` that are single words or lists of them."""
    kept: Row = {}
    for name in sorted(names & values.keys()):
        value = values[name]
        listed = isinstance(value, (list, tuple))
        kept[name] = [word for word in map(_word, value) if word] if listed else _word(value)
    return kept


def _is_key(name: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(name) or _NUMERIC.fullmatch(name))


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _word(text: Any) -> str:
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def _metric(name: Any) -> str:
    """Return a metric's name, hashed unless it is a word."""
    return name if not name or _word(name) else stable_hash(str(name), 12)


def _version(text: Any) -> str:
    return text if isinstance(text, str) and _VERSION.fullmatch(text) else ""


def _hash(text: str) -> str:
    """Hash a text that is not a hash yet."""
    return text if not text or re.fullmatch(r"[0-9a-f]{8,64}", text) else stable_hash(text)
