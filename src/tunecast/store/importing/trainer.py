"""Importer of runs from output folders of a transformers Trainer, including trl's trainers.

It reads only JSON, the README and the headers of safetensors files. ``training_args.bin`` and ``*.pt`` are
pickles, which can run any code when loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunecast.records import Outcome, Scalar, stable_hash
from tunecast.store.importing.arguments import number, peft_method, training_hyperparameters, whole
from tunecast.store.importing.foreign import ForeignRun, Problem, Recorded, read_one, whole_or_problem
from tunecast.store.importing.identity import log_identity
from tunecast.store.importing.log_history import evaluations_of
from tunecast.store.importing.model_card import ModelCard, parse_card
from tunecast.untrusted import parse_json, read_json

STATE_FILE = "trainer_state.json"
_ADAPTER_FILE = "adapter_config.json"
_HEADER_LIMIT = 100_000_000  # the limit of safetensors itself


def read_trainer_folder(folder: Path) -> Recorded:
    """Read all runs below a folder; the furthest checkpoint of a run represents it."""
    states: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob(STATE_FILE)):
        states.setdefault(_run_folder(path.parent), []).append(path)
    recorded = Recorded()
    for run_folder, paths in states.items():
        recorded += read_one(str(run_folder), partial(_read_run, run_folder, paths))
    adapters = {_run_folder(path.parent) for path in folder.rglob(_ADAPTER_FILE)}
    reason = f"an adapter without {STATE_FILE}: there is no curve to import"
    return recorded + Recorded(
        problems=tuple(Problem(str(path), reason) for path in sorted(adapters - states.keys()))
    )


def _run_folder(folder: Path) -> Path:
    return folder.parent if re.fullmatch(r"checkpoint-\d+", folder.name) else folder


def _read_run(folder: Path, paths: list[Path]) -> Recorded:
    problems: list[Problem] = []
    states = [(path, state) for path in paths if (state := _read_json(path, problems)) is not None]
    states = [(path, state) for path, state in states if _is_state(path, state, problems)]
    if not states:
        return Recorded(problems=tuple(problems))
    path, state = max(
        states, key=lambda found: (whole(found[1].get("global_step")) or 0, found[0].parent == folder)
    )
    # The furthest checkpoint describes the run best; files that it lacks may be in the run's own folder.
    places = [path.parent, folder]
    card = _card(places, problems)
    adapter = _first_json(places, _ADAPTER_FILE, problems)
    run = _foreign_run(path, state, card, adapter, places, problems)
    run = replace(run, where=str(folder))
    if not run.evaluations:
        problems.append(Problem(str(path), "no evaluation was logged: the run has no curve"))
    return Recorded((run,), tuple(problems))


def _is_state(path: Path, state: Mapping[str, Any], problems: list[Problem]) -> bool:
    if isinstance(state.get("log_history"), list):
        return True
    problems.append(Problem(str(path), "has no log_history"))
    return False


def _foreign_run(
    path: Path,
    state: Mapping[str, Any],
    card: ModelCard,
    adapter: Mapping[str, Any] | None,
    places: list[Path],
    problems: list[Problem],
) -> ForeignRun:
    history = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    config = _first_json(places, "config.json", problems) or {}
    pattern = "adapter_model*.safetensors" if adapter else "model*.safetensors"
    weights = _count_parameters(places, pattern, problems)
    method, tuned = peft_method(adapter) if adapter else ("full" if config else "", {})
    hyperparameters, extra = _hyperparameters(state, card, history)
    model = card.model or str(
        (adapter or {}).get("base_model_name_or_path") or config.get("_name_or_path") or ""
    )
    total_steps = whole_or_problem(state.get("max_steps"), "max_steps", str(path), problems) or None
    completed = total_steps is not None and (number(state.get("global_step")) or 0) >= total_steps
    tokens = whole(state.get("num_input_tokens_seen"))
    versions = dict(card.versions or {})
    identity = log_identity([state.get("max_steps"), tuned], history, card.arguments or {})
    return ForeignRun(
        source="trainer",
        key=stable_hash(identity, 32),
        task=card.task,
        model=model,
        method=method,
        hyperparameters=hyperparameters | tuned,
        seed=whole_or_problem((card.arguments or {}).get("seed"), "seed", str(path), problems),
        total_steps=total_steps,
        evaluations=tuple(evaluations_of(history)),
        full_length_tokens=tokens if completed and tokens else None,
        outcome=Outcome.COMPLETED if completed else Outcome.PAUSED,
        config={} if adapter else config,
        parameters=None if adapter else weights,
        trainable_parameters=weights,
        versions=versions,
        extra=extra | identity | {"epochs": state.get("epoch"), "train_loss": _train_losses(history)},
    )


def _hyperparameters(
    state: Mapping[str, Any], card: ModelCard, history: list[dict[str, Any]]
) -> tuple[dict[str, Scalar], dict[str, Any]]:
    """Return hyperparameters, and the names of those that were inferred."""
    arguments: dict[str, Any] = dict(card.arguments or {})
    arguments.setdefault("per_device_train_batch_size", state.get("train_batch_size"))
    rates = [rate for entry in history if (rate := number(entry.get("learning_rate"))) is not None]
    if "learning_rate" in arguments or not rates:
        return training_hyperparameters(arguments), {}
    # Use the highest logged rate; during warm-up and decay it may be below the configured rate.
    return training_hyperparameters(arguments | {"learning_rate": max(rates)}), {
        "inferred": ["learning_rate"]
    }


def _train_losses(history: list[dict[str, Any]]) -> list[list[float]]:
    found = ((number(entry.get("step")), number(entry.get("loss"))) for entry in history)
    return [[step, loss] for step, loss in found if step is not None and loss is not None]


def _card(places: list[Path], problems: list[Problem]) -> ModelCard:
    cards = [place / "README.md" for place in reversed(places) if (place / "README.md").is_file()]
    parsed = [card for path in cards if (card := _read_card(path, problems)) is not None]
    found = next((card for card in parsed if card.arguments), None)
    pickled = next((p / "training_args.bin" for p in places if (p / "training_args.bin").is_file()), None)
    if found is None and pickled is not None:
        reason = "is a pickle, which is never loaded, and no README.md lists the arguments"
        problems.append(Problem(str(pickled), reason))
    return found or next(iter(parsed), ModelCard())


def _read_card(path: Path, problems: list[Problem]) -> ModelCard | None:
    try:
        return parse_card(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read: {error}"))
        return None


def _first_json(places: list[Path], name: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    for place in places:
        if (place / name).is_file():
            return _read_json(place / name, problems)
    return None


def _read_json(path: Path, problems: list[Problem]) -> Mapping[str, Any] | None:
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        problems.append(Problem(str(path), f"cannot be read as JSON: {error}"))
        return None
    if isinstance(value, dict):
        return value
    problems.append(Problem(str(path), "is not a JSON object"))
    return None


def _count_parameters(places: list[Path], pattern: str, problems: list[Problem]) -> int | None:
    """Count parameters by headers, in the first place that has such files, all of them intact."""
    for place in places:
        counts = [_header_count(path, problems) for path in sorted(place.glob(pattern))]
        if any(counts) and None not in counts:  # a sum over part of the files would be too small
            return sum(count or 0 for count in counts)
    return None


def _header_count(path: Path, problems: list[Problem]) -> int | None:
    """Count parameters in a file; a damaged file is reported but does not stop the import of the curve."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(length, _HEADER_LIMIT)))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        count = whole(sum(math.prod(tensor.get("shape", [])) for tensor in tensors))
    except (OSError, ValueError, TypeError, AttributeError):
        count = None
    if count is None:
        problems.append(Problem(str(path), "its header is damaged: its parameters are not counted"))
    return count
