"""Tunecast's main work as functions, which the commands of the same names call.

The other commands call the packages that do their work; ``resolve`` is ``tune --dry-run``, and ``predict`` is
for programs alone. Where the user can fix a problem, they raise a :class:`~tunecast.errors.UserError`.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.atomic import written_whole
from tunecast.budget import Budget
from tunecast.errors import ConfigurationError, StoreError, UserError, disk_error
from tunecast.models.delivered import DELIVERED, SESSION_FILE
from tunecast.paths import expanded
from tunecast.progress import Progress, Silent
from tunecast.records import Machine, Pipeline
from tunecast.results import Evaluation, SessionRecord
from tunecast.session.folder import PIPELINE_FILE, STORE_FILE, OutputFolder
from tunecast.session.settings import SessionSettings

if TYPE_CHECKING:
    from tunecast.executors.base import Executor
    from tunecast.recommender.question import Question
    from tunecast.recommender.recommendation import Prospect, Recommendation
    from tunecast.session.calibrate_length import BaseMeasurement
    from tunecast.session.feasible import Feasible
    from tunecast.session.prepare import PreparedTask
    from tunecast.session.state import SessionState
    from tunecast.store import Store

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
TRIAL_EXAMPLES = 8
"""References on which a function of the user's is tried; a correlation needs more than one."""


def tune(
    settings: SessionSettings, *, resume: bool = False, progress: Progress | None = None
) -> SessionRecord:
    """Choose a finetuning within a budget, train it, and deliver the best model.

    Args:
        settings: The resolved configuration.
        resume: Resume the session in the output folder; start one if there is none.
        progress: Receives progress reports; None shows them in a terminal or a notebook.

    Returns:
        The session's record; the output folder holds ``best/``, ``report.html`` and ``session.json``.
    """
    from tunecast.report.live import given_or_shown

    _check(settings)
    folder = OutputFolder(expanded(settings.output_dir))
    try:
        with given_or_shown(progress) as shown:
            return _tune_in(folder, settings, resume, shown)
    except OSError as error:
        if isinstance(error, shutil.Error):  # of a whole folder: it has no number, but a line for each file
            raise disk_error(folder.path, _first_reason(error)) from error
        if error.errno in DISK_ERRORS:
            raise disk_error(folder.path, str(error)) from error
        raise
    finally:
        folder.close()


def train(
    settings: SessionSettings, pipeline: Pipeline, *, resume: bool = False, progress: Progress | None = None
) -> SessionRecord:
    """Train one pipeline for ``settings.epochs``, deliver its best checkpoint, compare it with zero-shot.

    Args:
        settings: As for :func:`tune`; its budget, strategy, restrictions, value, prior, forecast and final
            training are ignored. With ``patience`` training stops early if validation no longer improves.
        pipeline: Method and hyperparameters; missing ones get the baseline's values if the method is LoRA,
            else its usual ones.
        resume: Continue the training in the output folder.
        progress: As for :func:`tune`.

    Returns:
        As :func:`tune`, with zero-shot and the trained model as contenders.
    """
    from tunecast.search import GIVEN

    alone = replace(
        settings,
        strategy=GIVEN,
        budget="1-trials",
        methods=(pipeline.method,),
        fixed=pipeline.hyperparameters,
        ranges={},
        value=None,
        prior="",
        final_training="none",
    )
    return tune(alone, resume=resume, progress=progress)


def evaluate(
    settings: SessionSettings,
    *,
    adapter: str = "",
    split: str = "test",
    seed: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a dataset; see :func:`tunecast.session.evaluation.evaluate`."""
    from tunecast.report.live import given_or_shown
    from tunecast.session.evaluation import evaluate as score

    _check_objective(settings.objective)
    with given_or_shown(progress) as shown:
        return score(settings, adapter, split, shown, seed=seed)


def recommend(
    question: Question, *, measure: str = "", calibrate: bool = False, progress: Progress | None = None
) -> Recommendation:
    """Recommend pipelines before anything runs: predicted quality, hours, bytes, money, and reasons.

    Args:
        question: Model, data, machine and the user's wishes.
        measure: Time to measure the zero-shot loss for, such as ``30s``; empty predicts it.
        calibrate: Whether this machine is measured first, in some seconds, and remembered.
        progress: Receives the progress of a measurement; None shows it in a terminal or a notebook.
    """
    from tunecast.recommender.question import look
    from tunecast.recommender.recommend import default_prior, recommend_pipelines
    from tunecast.report.live import given_or_shown

    with given_or_shown(progress) as shown:
        if calibrate:
            _calibrate(question, shown)
        situation = look(question)
        measured = None
        if measure:
            from tunecast.session.measure_zero_shot import measure_zero_shot

            measured = measure_zero_shot(question, situation, measure, shown)
    return recommend_pipelines(question, situation, default_prior(), measured)


def _calibrate(question: Question, progress: Progress) -> None:
    from tunecast.estimate.calibrate import calibrate

    if question.gpu is not None:
        raise ConfigurationError(
            f"--calibrate measures this machine, but --gpu {question.gpu} asks for another.",
            "Leave one of them out.",
        )
    progress.start("Measuring this machine")
    target = calibrate()
    rates = target.machine.flops_per_second
    progress.finish(", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items()))


def predict(
    model: str, data: str, pipelines: Sequence[Pipeline], machine: Machine | str | None = None
) -> list[Prospect]:
    """Score pipelines that the caller brings: predicted loss, hours and bytes; nothing is run.

    Args:
        model: The base model, as :func:`tunecast.models.resolve` takes it; ``config.json`` is enough.
        data: File, folder, hub id or ``stdlib``.
        pipelines: Pipelines to score; missing hyperparameters take their defaults.
        machine: A measured machine, the name of an accelerator, or None for this machine.

    Returns:
        One prospect for each pipeline whose costs can be estimated, in their order; ``fits`` says whether it
        fits memory.
    """
    from tunecast.hardware.local_machine import Target
    from tunecast.methods import get_method
    from tunecast.recommender.question import Question, look
    from tunecast.recommender.recommend import Horizon, Recommender, default_prior

    for pipeline in pipelines:
        get_method(pipeline.method)
    situation = look(Question(model, data, gpu=machine if isinstance(machine, str) else None))
    if isinstance(machine, Machine):
        situation = replace(situation, target=Target("the given machine", machine))
    return Recommender(situation, default_prior(), Horizon()).prospects(pipelines)


def export(
    source: str,
    to: str,
    *,
    model: str | None = None,
    data: str | None = None,
    output_dir: Path | None = None,
    epochs: float | None = None,
    max_length: int | None = None,
) -> list[Path]:
    """Hand a pipeline and its data over to another trainer.

    Args:
        source: The output folder of a session, or the JSON file of a pipeline.
        to: ``trl``, ``unsloth``, ``axolotl`` or ``llamafactory``.
        model: Base model; None takes the session's.
        data: Data; None takes the session's.
        output_dir: Output folder; None makes ``export-TRAINER`` in the session's folder, else here.
        epochs: Passes over the training examples; None takes the length that the session tested, else 3. For
            a longer run than the tested one, the learning rate is derived again.
        max_length: Longest sequence in tokens; None derives it as a session does.

    Returns:
        The files that were written, the one to start first.
    """
    from tunecast.exporters import TRAINERS, prepare_job
    from tunecast.exporters import export as write

    if to not in TRAINERS:
        raise ConfigurationError(f"--to: there is no trainer {to!r}.", f"Use {', '.join(TRAINERS)}.")
    job = prepare_job(source, model=model, data_source=data, epochs=epochs, max_length=max_length)
    home = Path(source) if Path(source).is_dir() else Path()
    return write(job, to, output_dir or home / f"export-{to}")


def merge(source: str, *, model: str | None = None, output_dir: Path | None = None) -> Path:
    """Merge an adapter into its base model: a plain folder that transformers loads.

    Args:
        source: The output folder of a session, or the folder of an adapter.
        model: The base model; None takes the adapter's own.
        output_dir: Output folder; None makes ``merged`` in the session's folder, else here.

    Returns:
        The folder, with a model card in it.

    Raises:
        UserError: A problem that the user can fix, such as an adapter that cannot be merged.
    """
    from tunecast.exporters.merge import merge as write

    home = Path(source) if (Path(source) / DELIVERED).is_dir() else Path()
    folder = write(Path(source), output_dir or home / "merged", model=model)
    if (home / SESSION_FILE).is_file() and home == Path(source):
        _write_merged_card(home, folder)
    return folder


def _write_merged_card(session: Path, merged: Path) -> None:
    """Write the card of a session's merged model, with its scores, if the session's own store has its run."""
    from tunecast.report.card import model_card
    from tunecast.session.folder import read_session
    from tunecast.session.state import read_state
    from tunecast.store import Store

    record = read_state(read_session(session)).record
    if record is None:
        return
    try:  # a store elsewhere is not opened: a folder of others must not make this program connect to it
        with Store.open(session / STORE_FILE, create=False) as store:
            run = store.get(record.contender(record.winner).run)
    except StoreError:
        return
    base_model = str(record.configuration["model"])
    with written_whole(merged / "README.md") as unfinished:
        unfinished.write_text(model_card(record, run, base_model=base_model, folder=merged), encoding="utf-8")


def resolve(settings: SessionSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Return the plan that :func:`tune` would follow, with everything automatic decided; nothing is trained.

    Args:
        settings: The configuration.
        progress: Shows the predictions, as on the first screen of a session.
    """
    from tunecast.methods import pipeline_space
    from tunecast.report.predictions import show_predictions
    from tunecast.session.candidates import check_restrictions
    from tunecast.session.feasible import limit_bytes
    from tunecast.session.prepare import prepare_task
    from tunecast.session.recommendation import recommendation_for
    from tunecast.session.wall_time import predicted_speed, test_scoring_seconds

    _check(settings)
    prepared = prepare_task(settings, Silent())
    _try_objective(settings.objective, prepared)
    training_task = prepared.training_task
    check_restrictions(settings, training_task.facts)
    limit = limit_bytes(settings, training_task.device)
    predicted, lineup = recommendation_for(settings, prepared, limit)
    feasible = _feasible(settings, prepared, limit, Silent(), lineup.pipelines)
    space = pipeline_space(training_task.facts, settings.restrictions, seed=settings.seed)
    show_predictions(prepared, predicted, progress or Silent())
    feasible_pipelines = feasible.pipelines if feasible.baseline_fits else feasible.pipelines[1:]
    return {
        "configuration": settings.as_json(),
        "model": {
            "name": training_task.facts.name,
            "parameters": training_task.facts.parameters,
            "family": training_task.facts.family,
        },
        "data": {"name": prepared.task.dataset, "format": prepared.dataset.format}
        | {"examples": dict(prepared.dataset.examples), "train_tokens": training_task.train_tokens},
        "device": training_task.device,
        "dtype": training_task.dtype,
        "threads": training_task.threads,
        "max_length": training_task.max_length,
        "max_new_tokens": training_task.max_new_tokens,
        "baseline": asdict(feasible.pipelines[0]),
        "candidates": {
            "left": len(feasible_pipelines),
            "left_out": feasible.left_out,
            "baseline_fits": feasible.baseline_fits,
            "worker_bytes": limit,
            "methods": dict(Counter(one.method for one in feasible_pipelines)),
        },
        "test_scoring": {
            "examples": len(training_task.test),
            "seconds": None
            if isinstance(predicted, UserError)
            else test_scoring_seconds(training_task, settings, predicted_speed(training_task, predicted)),
        },
        "space": [str(parameter) for parameter in space.values()],
        "prediction": {"warnings": [predicted.what]}
        if isinstance(predicted, UserError)
        else predicted.as_json(),
        "warnings": [*prepared.warnings, *feasible.warnings],
    }


def _tune_in(
    folder: OutputFolder, settings: SessionSettings, resume: bool, progress: Progress
) -> SessionRecord:
    from tunecast.session.state import earlier_state

    earlier = earlier_state(folder, settings, resume)
    if earlier is not None and earlier.record is not None:
        progress.log(f"The session in {folder.path} is complete.")
        return earlier.record
    from tunecast.executors import start_executor
    from tunecast.hardware.processor import worker_threads

    progress.start("Loading the libraries")
    # Its workers' libraries load while this process reads and predicts.
    threads = worker_threads(settings.threads, settings.workers)
    lock = [folder.lock_descriptor]
    with start_executor(settings.executor, settings.workers, threads, lock) as executor:
        return _tune_with(executor, folder, settings, earlier, progress)


def _tune_with(
    executor: Executor,
    folder: OutputFolder,
    settings: SessionSettings,
    earlier: SessionState | None,
    progress: Progress,
) -> SessionRecord:
    from tunecast.report.predictions import show_measured
    from tunecast.search import get_strategy
    from tunecast.session.candidates import check_restrictions
    from tunecast.session.recommendation import recommended
    from tunecast.session.session import Session, load_model
    from tunecast.session.state import state_of
    from tunecast.session.status import resumed_text, resumed_training_text
    from tunecast.session.transfer_state import runs_known
    from tunecast.store import Store

    progress.finish()
    prepared = _prepared(folder, settings, earlier, progress)
    _try_objective(settings.objective, prepared)
    for warning in prepared.warnings:
        progress.log(f"Note: {warning}")
    check_restrictions(settings, prepared.training_task.facts)
    state = state_of(settings, prepared.dataset.fingerprint, prepared.training_task.dtype, earlier)
    limit = _follow_recommendation(state, settings, prepared, progress)
    settings = _with_usable_strategy(settings, state.advised, progress)
    feasible = _feasible(settings, prepared, limit, progress, state.advised)
    prepared = replace(prepared, warnings=(*prepared.warnings, *feasible.warnings))
    strategy = get_strategy(settings.strategy)
    with Store.open(settings.store or folder.path / STORE_FILE) as store:
        if earlier is not None:
            runs = list(store.runs(session=state.id))
            text = resumed_text(settings.budget, state.used_seconds, runs)
            progress.log(text if strategy.has_baseline else resumed_training_text(runs))
        load_model(executor, prepared.training_task, progress)
        # A resumed session wrote down what the recorded runs said when it began.
        is_kept = state.listed is not None
        known = () if is_kept else runs_known(strategy, store, state.id, progress)
        session = Session(settings, prepared, folder, store, executor, progress, state, feasible, known)

        def show_again(measured: BaseMeasurement) -> None:
            if strategy.has_baseline:  # otherwise the user has decided already
                predicted = recommended(settings, prepared, limit, measured)
                show_measured(settings, prepared, predicted, measured, progress)

        record = session.run(show_again)
        _write_results(folder, store, state, record, settings)
    return record


def _prepared(
    folder: OutputFolder, settings: SessionSettings, earlier: SessionState | None, progress: Progress
) -> PreparedTask:
    """Prepare the task; a resumed session keeps the type of the weights and the length it began with."""
    from tunecast.session.prepare import prepare_task

    if earlier is None:
        return prepare_task(settings, progress)
    if settings.max_length is None:
        from tunecast.store import Store

        with Store.open(settings.store or folder.path / STORE_FILE) as store:
            begun = next(iter(store.runs(session=earlier.id)), None)
        settings = replace(settings, max_length=begun.max_length if begun else None)
    return prepare_task(settings, progress, dtype=earlier.dtype)


def _follow_recommendation(
    state: SessionState, settings: SessionSettings, prepared: PreparedTask, progress: Progress
) -> int:
    """Recommend pipelines once, show them, and keep the lineup in the session's state.

    A resumed session keeps its candidates, even if memory or recommendations have changed since. Returns the
    bytes that a worker may hold.
    """
    from tunecast.search import get_strategy

    if state.worker_bytes is None and not get_strategy(settings.strategy).has_baseline:
        from tunecast.session.feasible import limit_bytes

        state.worker_bytes = limit_bytes(settings, prepared.training_task.device)
    if state.worker_bytes is None:
        from tunecast.report.predictions import show_expected_time, show_predictions
        from tunecast.session.feasible import limit_bytes
        from tunecast.session.recommendation import recommendation_for

        state.worker_bytes = limit_bytes(settings, prepared.training_task.device)
        predicted, lineup = recommendation_for(settings, prepared, state.worker_bytes)
        state.advised = list(lineup.pipelines)
        if settings.value is not None:
            state.predicted = dict(lineup.predicted)
        show_predictions(prepared, predicted, progress)
        show_expected_time(settings, prepared, predicted, progress)
    return state.worker_bytes


def _feasible(
    settings: SessionSettings,
    prepared: PreparedTask,
    worker_bytes: int,
    progress: Progress,
    lineup: Sequence[Pipeline],
) -> Feasible:
    from tunecast.session.candidates import candidate_pipelines
    from tunecast.session.feasible import feasible_candidates

    progress.start("Estimating what fits in memory")
    candidates = candidate_pipelines(settings, prepared.training_task.facts, lineup)
    feasible = feasible_candidates(settings, prepared.training_task, candidates, worker_bytes)
    left_out = f"{feasible.left_out} of {len(candidates)} candidates left out"
    room = f"{worker_bytes / 1e9:.2f} GB for a worker"
    progress.finish(f"{left_out}, {room}" if len(candidates) > 1 else room)
    for warning in feasible.warnings:
        progress.log(f"Note: {warning}")
    return feasible


def _with_usable_strategy(
    settings: SessionSettings, lineup: Sequence[Pipeline], progress: Progress
) -> SessionSettings:
    """Replace a strategy that needs a recommendation by its fallback if there is none."""
    from tunecast.search import get_strategy

    fallback = get_strategy(settings.strategy).fallback
    if not fallback or lineup:
        return settings
    unused = "" if settings.value is None else "; --value has no effect"
    progress.log(
        f"Note: nothing could be recommended, so candidates come in random order (--strategy {fallback})"
        f"{unused}."
    )
    return replace(settings, strategy=fallback)


def _write_results(
    folder: OutputFolder, store: Store, state: SessionState, record: SessionRecord, settings: SessionSettings
) -> None:
    """Write the model card, the report, and last ``session.json``, which marks the session as complete."""
    import json

    from tunecast.report.card import model_card
    from tunecast.report.page import write_report

    runs = list(store.runs(session=record.id))
    store.put_session(record.id, asdict(record))
    winner = record.contender(record.winner)
    run = next(run for run in runs if run.id == winner.run)
    card = model_card(record, run, base_model=settings.model)
    folder.write_text("best/README.md", card)
    if record.longer is not None:
        content = json.dumps(asdict(record.longer.pipeline), indent=2)
        folder.write_text(PIPELINE_FILE, f"{content}\n")
    write_report(record, runs, folder.path / "report.html")
    folder.write_session(replace(state, record=record).as_json())


def _check(settings: SessionSettings) -> None:
    """Refuse settings that are wrong by themselves, before anything is read or locked.

    Raises:
        UserError: The budget cannot be read, the store is of an unsupported kind, or a strategy, method,
            hyperparameter or metric is unknown, or a search is asked to stop its trials early.
    """
    from tunecast.methods import check_names
    from tunecast.search import check_strategy, get_strategy

    Budget.parse(settings.budget)
    if settings.store:
        from tunecast.store.connecting import parse_url

        parse_url(settings.store)
    check_strategy(settings.strategy, settings.prior, settings.value)
    if settings.patience is not None and get_strategy(settings.strategy).has_baseline:
        raise ConfigurationError(
            "patience is for tunecast train alone: in tune the strategy decides which trials go on.",
            "Leave it out.",
        )
    check_names(settings.restrictions)
    _check_objective(settings.objective)


def _check_objective(objective: str) -> None:
    if objective != "loss":
        from tunecast.training.metrics import get_metric

        get_metric(objective)


def _try_objective(objective: str, prepared: PreparedTask) -> None:
    """Call the user's own metric once, on references of this data, before anything is spent on it.

    Raises:
        ConfigurationError: The function fails, or gives no score.
    """
    if ":" in objective:
        from tunecast.data.examples import reference
        from tunecast.training.metrics import get_metric

        texts = [
            reference(example) for example in prepared.training_task.validation_examples[:TRIAL_EXAMPLES]
        ]
        get_metric(objective).score(texts, texts)


def _first_reason(error: shutil.Error) -> str:
    """Return why the first file could not be copied; the error holds (source, target, reason) of each."""
    first = error.args[0][0] if isinstance(error.args[0], list) and error.args[0] else error
    return str(first[2] if isinstance(first, tuple) else first)
