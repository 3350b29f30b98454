"""Expands a plan into runs, each fully determined before a worker loads anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import PurePath
from typing import TypeVar

import numpy as np

from tunecast import data, models
from tunecast.collect.balance import interleave, visits
from tunecast.collect.planfile import DatasetChoice, GridPipeline, ModelChoice, Plan
from tunecast.collect.sampling import Drawing, Drawn
from tunecast.data.examples import prompt_text
from tunecast.errors import UserError
from tunecast.hardware.dtype import COMPUTE_DTYPES, choose_dtype
from tunecast.methods.rates import adapter_rate
from tunecast.methods.restrictions import Restrictions
from tunecast.methods.space import at_3e4, baseline_pipeline
from tunecast.progress import Progress
from tunecast.records import ZERO_SHOT, ModelFacts, Pipeline, device_kind, stable_hash

Choice = TypeVar("Choice", DatasetChoice, ModelChoice)
Read = TypeVar("Read")

DATA_SEED = 0
"""Seed of splits and of scored examples: one for all plans, so that their runs can be compared."""
SHARED = "shared"
GOLDEN = 0.618034
BATCH_SIZE = "per_device_train_batch_size"
SMALLEST_BATCH = 4
CHARACTERS_PER_TOKEN = 3.0
TEMPLATE_TOKENS = 12
"""Used to guess an example's tokens without a tokenizer, only to choose batch size and full length."""


@dataclass(frozen=True)
class RunSpec:
    """One run to collect.

    Args:
        id: Hash of data, weights, pipeline, seed, amounts, dtype, device and exclusiveness.
        in_other_dtypes: The ids that it has on processors that compute in another dtype; none if it is made
            for its seconds.
        model: The value of ``--model``.
        dataset: The value of ``--data``, and the metric.
        number: Number of its sample in the plan, the same for every model; -1 if it was not sampled.
        shared: Whether every dataset of the model has this sample.
        measures_metric: Whether the task's metric is also measured.
        exclusive: Whether nothing else may run on the machine.
    """

    id: str
    in_other_dtypes: tuple[str, ...]
    model: str
    dataset: DatasetChoice
    pipeline: Pipeline
    seed: int
    full_length_tokens: int
    unique_examples: int
    number: int
    shared: bool
    measures_metric: bool
    exclusive: bool


@dataclass(frozen=True)
class Expansion:
    """An expanded plan: chunks of one base model and one dataset in balanced order.

    ``unusable`` counts the planned runs whose dataset or base model cannot be used.
    """

    chunks: list[list[RunSpec]]
    unusable: int

    @property
    def run_specs(self) -> list[RunSpec]:
        """All runs in order."""
        return [run_spec for chunk in self.chunks for run_spec in chunk]


def expand(plan: Plan, *, device: str, progress: Progress) -> Expansion:
    """Expand a plan into runs in balanced order, in chunks of one base model and one dataset.

    A dataset or base model that cannot be used is reported and left out; this does not change the other runs.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; the kind of device is part of a run's identity.

    Raises:
        UserError: None of the datasets, or none of the base models, can be used.
    """
    progress.start("Reading the plan's datasets and models", len(plan.datasets) + len(plan.models))

    def read_source(choice: DatasetChoice) -> _Source:
        return _source(choice, data.read(choice.path, seed=DATA_SEED))

    def read_series(choice: ModelChoice) -> _Series:
        facts = models.describe(models.resolve(choice.path))
        kind = _GridSeries if plan.grid else _Series
        return kind(plan, choice.path, facts, device, choice.runs_per_dataset, len(plan.datasets))

    sources = _usable("dataset", plan.datasets, read_source, progress)
    series = _usable("base model", plan.models, read_series, progress)
    progress.finish()
    seen: set[str] = set()
    chunks, unusable = [], 0
    # Unusable choices keep their places, because starts, samples and order of all others depend on them.
    for visit in visits([_runs(plan, choice) for choice in plan.models], len(sources), plan.chunk):
        one, source = series[visit.model], sources[visit.dataset]
        if one is None or source is None:
            unusable += len(visit.slots)
            continue
        run_specs = one.run_specs(visit.dataset, source)
        chosen = [run_specs[slot] for slot in visit.slots if run_specs[slot].id not in seen]
        seen.update(run_spec.id for run_spec in chosen)
        chunks.append(chosen)
    return Expansion([chunk for chunk in chunks if chunk], unusable)


def _usable(
    kind: str, choices: Sequence[Choice], read: Callable[[Choice], Read], progress: Progress
) -> list[Read | None]:
    """Read each choice; report unusable ones, and return None for them.

    Raises:
        UserError: All are unusable; the error is the first one's.
    """
    found: list[Read | None] = []
    errors: list[UserError] = []
    for choice in choices:
        try:
            found.append(read(choice))
        except UserError as error:
            progress.log(f"Left out: the {kind} {choice.path}: {error.what}")
            errors.append(error)
            found.append(None)
        progress.advance(note=PurePath(choice.path).name)
    if len(errors) == len(choices):
        raise errors[0]
    return found


def _runs(plan: Plan, choice: ModelChoice) -> int:
    if not plan.grid:
        return choice.runs_per_dataset
    factors = (plan.grid, plan.full_lengths, plan.unique_examples, plan.seeds)
    return min(choice.runs_per_dataset, prod(map(len, factors)))


@dataclass(frozen=True)
class _Source:
    choice: DatasetChoice
    fingerprint: str
    train_examples: int
    example_tokens: float

    def unique_examples(self, levels: Sequence[int | None], place: float) -> int:
        """Return the subset size at a place between 0 and 1 among the distinct sizes on this dataset."""
        most = self.train_examples
        sizes = sorted({min(level or most, most) for level in levels})
        return sizes[min(int(place * len(sizes)), len(sizes) - 1)]


def _source(choice: DatasetChoice, content: data.Dataset) -> _Source:
    characters = sum(len(prompt_text(e)) + len(data.reference(e)) for e in content.train)
    tokens = TEMPLATE_TOKENS + characters / len(content.train) / CHARACTERS_PER_TOKEN
    return _Source(choice, content.fingerprint, len(content.train), tokens)


class _Series:
    """The runs of one base model on every dataset."""

    def __init__(
        self, plan: Plan, path: str, facts: ModelFacts, device: str, runs: int, datasets: int
    ) -> None:
        self._plan = plan
        self._path = path
        self._facts = facts
        self._kind = device_kind(device)
        self._dtype = choose_dtype(device, facts.width)
        self._datasets = datasets
        self._always = plan.always[:runs]
        sampled = runs - len(self._always)
        self._shared = round(plan.shared * sampled)
        self._own = sampled - self._shared
        self._drawing = Drawing(plan, facts)
        self._known: dict[int, list[RunSpec]] = {}

    def run_specs(self, dataset: int, source: _Source) -> list[RunSpec]:
        """Return the runs on one dataset, in order."""
        if dataset not in self._known:
            self._known[dataset] = list(self._ordered(dataset, source))
        return self._known[dataset]

    def _ordered(self, dataset: int, source: _Source) -> Iterator[RunSpec]:
        """Yield the zero-shot run, then shared and own samples interleaved.

        The other runs that are always made come at places that differ by dataset.
        """
        drawn: list[RunSpec] = []
        shared = own = 0
        for kind in interleave([self._shared, self._own]):
            if kind == 0:
                # Each dataset starts at another sample, so that early on all shared samples occur somewhere.
                start = dataset * self._shared // self._datasets
                drawn.append(self._sampled(source, SHARED, (start + shared) % self._shared))
                shared += 1
            else:
                drawn.append(self._sampled(source, "own", own * self._datasets + dataset))
                own += 1
        for place, name in enumerate(self._always):
            run_spec = self._fixed(source, name, dataset + place)
            if name == ZERO_SHOT.method:
                # Losses are learned relative to the zero-shot loss; without it, no other run is of use.
                yield run_spec
                continue
            turn = (dataset * GOLDEN + place / len(self._always)) % 1
            drawn.insert(int(turn * (len(drawn) + 1)), run_spec)
        yield from drawn

    def _sampled(self, source: _Source, stream: str, number: int) -> RunSpec:
        draw = self._with_enough_steps(source, self._drawing.draw(stream, number), SMALLEST_BATCH)
        return self._run_spec(source, draw, number, shared=stream == SHARED)

    def _with_enough_steps(self, source: _Source, draw: Drawn, least_batch: int) -> Drawn:
        """Lengthen a sample's full length, then reduce its batch, as little as enough steps require."""
        step_tokens = source.example_tokens * self._plan.least_steps
        lengths = sorted(n for n in self._plan.full_lengths if n >= draw.full_length_tokens)
        length = next((n for n in lengths if n >= step_tokens * least_batch), lengths[-1])
        values = dict(draw.pipeline.hyperparameters)
        batch = int(draw.pipeline.number(BATCH_SIZE))
        while batch > least_batch and length < step_tokens * batch:
            batch //= 2
        pipeline = Pipeline(draw.pipeline.method, {**values, BATCH_SIZE: batch})
        return replace(draw, pipeline=pipeline, full_length_tokens=length)

    def _fixed(self, source: _Source, name: str, turn: int) -> RunSpec:
        lengths = sorted(self._plan.full_lengths)
        pipeline = {
            "zero-shot": ZERO_SHOT,
            "baseline": baseline_pipeline(self._facts),
            "baseline-3e-4": at_3e4(),
        }[name]
        if name == "zero-shot":
            draw = Drawn(pipeline, lengths[-1], 1.0, self._plan.seeds[0])
        else:
            draw = Drawn(pipeline, lengths[turn % len(lengths)], turn * GOLDEN % 1, self._plan.seeds[0])
            draw = self._with_enough_steps(source, draw, int(pipeline.number(BATCH_SIZE)))
        return self._run_spec(source, draw, -1, shared=True)

    def _run_spec(self, source: _Source, draw: Drawn, number: int, *, shared: bool) -> RunSpec:
        plan, pipeline = self._plan, draw.pipeline
        unique_examples = source.unique_examples(plan.unique_examples, draw.unique_level)
        content = {
            "data": source.fingerprint,
            "model": self._facts.identity,
            "method": pipeline.method,
            "hyperparameters": dict(pipeline.hyperparameters),
            "seed": draw.seed,
            "full_length_tokens": draw.full_length_tokens,
            "unique_examples": unique_examples,
            "device": self._kind,
            "exclusive": plan.exclusive,
        }
        identity = stable_hash(content | {"dtype": self._dtype})
        others = () if plan.exclusive else [dtype for dtype in COMPUTE_DTYPES if dtype != self._dtype]
        chance = int(identity[:8], 16) / 16**8
        metric = source.choice.metric != "loss"
        return RunSpec(
            id=identity,
            in_other_dtypes=tuple(stable_hash(content | {"dtype": dtype}) for dtype in others),
            model=self._path,
            dataset=source.choice,
            pipeline=pipeline,
            seed=draw.seed,
            full_length_tokens=draw.full_length_tokens,
            unique_examples=unique_examples,
            number=number,
            shared=shared,
            measures_metric=metric and (number < 0 or chance < plan.scoring.metric_share),
            exclusive=plan.exclusive,
        )


class _GridSeries(_Series):
    """Every pipeline of the plan's grid with every full length, number of unique examples and seed."""

    def __init__(
        self, plan: Plan, path: str, facts: ModelFacts, device: str, runs: int, datasets: int
    ) -> None:
        super().__init__(plan, path, facts, device, runs, datasets)
        levels = len(plan.unique_examples)
        places = [(level + 0.5) / levels for level in range(levels)]
        self._draws = [
            Drawn(self._grid_pipeline(one), length, place, seed)
            for one, length, place, seed in product(plan.grid, plan.full_lengths, places, plan.seeds)
        ]
        # In random order, so that an interrupted collection is a fair sample of every factor.
        np.random.default_rng(plan.seed).shuffle(self._draws)

    def _ordered(self, dataset: int, source: _Source) -> Iterator[RunSpec]:
        for number, draw in enumerate(self._draws):
            yield self._run_spec(source, draw, number, shared=True)

    def _grid_pipeline(self, wanted: GridPipeline) -> Pipeline:
        rate = float(f"{adapter_rate(self._facts) * wanted.rate:.4g}")
        fixed = {**wanted.hyperparameters, "learning_rate": rate}
        return baseline_pipeline(self._facts, Restrictions((wanted.method,), fixed=fixed))
