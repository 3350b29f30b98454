"""The plan of a session on one screen, for ``tune --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunecast.recommender.recommendation import Prospect
from tunecast.records import Pipeline
from tunecast.report.numbers import compact, duration, interval, storage
from tunecast.report.wording import pipeline_line, prospect_line
from tunecast.session.final_choice import final_choice

NOTES_SHOWN = 4
METHODS_SHOWN = 4


def plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Write a plan of :func:`tunecast.api.resolve` as names and texts."""
    settings, model, data = plan["configuration"], plan["model"], plan["data"]
    splits = ", ".join(f"{count:,} {split}" for split, count in data["examples"].items())
    return [
        ("model", f"{model['name']}: {model['family']}, {compact(model['parameters'])} parameters"),
        ("data", f"{data['name']} ({data['format']}): {splits}; {plan['max_length']:,} tokens at most"),
        ("device", f"{plan['device']}, {plan['dtype']}, {plan['threads']} threads{_workers(plan)}"),
        (
            "decided by",
            f"{plan['objective']} on validation ({plan['kind'].partition(' (')[0]}); test is only reported",
        ),
        ("time", _time(plan)),
        *_final_training(settings),
        ("search", _search(plan)),
        ("memory", _memory(plan["candidates"])),
        *_restrictions(settings),
        ("baseline", pipeline_line(Pipeline(**plan["baseline"]))),
        *_predicted(plan["prediction"]),
        *_notes([*plan["warnings"], *plan["prediction"]["warnings"]]),
        ("output", settings["output_dir"]),
        ("", "Nothing was trained; --json prints all. Start without --dry-run."),
    ]


def _workers(plan: Mapping[str, Any]) -> str:
    """Say how many workers there are, and over how many devices each spreads a trial, unless it is one."""
    workers, devices = plan["workers"], plan["gpus_per_trial"]
    text = f" for each of {workers} workers" if workers > 1 else ""
    return text if devices == 1 else f"{text}, each trial over {devices} devices"


def _time(plan: Mapping[str, Any]) -> str:
    scoring = plan["test_scoring"]
    seconds = scoring["seconds"]
    taken = "" if seconds is None else f"about {duration(seconds)} "
    return (
        f"{plan['configuration']['budget']} for search and comparison, then {taken}to score "
        f"{scoring['examples']:,} test examples with each contender"
    )


def _search(plan: Mapping[str, Any]) -> str:
    candidates = plan["candidates"]
    counts = sorted(candidates["methods"].items(), key=lambda pair: -pair[1])
    methods = ", ".join(f"{count} {method}" for method, count in counts[:METHODS_SHOWN])
    if len(counts) > METHODS_SHOWN:
        methods += f", {len(counts) - METHODS_SHOWN} other methods"
    return f"strategy {plan['configuration']['strategy']} over {candidates['left']} candidates: {methods}"


def _memory(candidates: Mapping[str, Any]) -> str:
    room = storage(candidates["worker_bytes"])
    if not candidates["left_out"]:
        return f"every candidate fits in the {room} of a worker"
    return f"{candidates['left_out']} more candidates are left out: they exceed the {room} of a worker"


def _final_training(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    choice = final_choice(*(settings[name] for name in ("final_training", "budget", "strategy", "workers")))
    if choice.epochs is not None:
        yield "afterwards", f"the winner is trained for {choice.epochs:g} epochs, outside of the budget"
    elif choice.kind == "budget":
        yield "afterwards", "the winner is trained for longer with half of the budget"


def _restrictions(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    given = [f"{name}={value}" for name, value in settings["fixed"].items()]
    given += [f"{name}={low:g}:{high:g}" for name, (low, high) in settings["ranges"].items()]
    if given:
        yield "restricted", ", ".join(given)


def _predicted(prediction: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Write the predictions, whose pipelines hold their method beside their hyperparameters."""
    if (untouched := prediction.get("zero_shot_loss")) is not None:
        ends = interval(untouched["low"], untouched["high"], 2)
        yield "predicted", f"base model: loss {untouched['value']:.2f} (90%: {ends}); a trial of each brings:"
    for number, one in enumerate(prediction.get("recommendations", ()), start=1):
        yield "", f"{number}. {prospect_line(Prospect.from_json(one))}"


def _notes(notes: list[str]) -> Iterator[tuple[str, str]]:
    for number, note in enumerate(notes[:NOTES_SHOWN]):
        yield ("" if number else "notes"), note
    if len(notes) > NOTES_SHOWN:
        yield "", f"{len(notes) - NOTES_SHOWN} more: --json"
