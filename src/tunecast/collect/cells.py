"""The runs of a plan, each fully determined before anything is loaded into a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from tunecast import data, models
from tunecast.collect.balance import interleave, visits
from tunecast.collect.drawing import Drawing, Drawn
from tunecast.collect.planfile import DatasetChoice, GridPipeline, Plan
from tunecast.data.examples import prompt_text
from tunecast.methods.rates import adapter_rate
from tunecast.methods.space import EXPERT, Restrictions, expert_pipeline
from tunecast.models.load import choose_dtype
from tunecast.progress import Progress
from tunecast.records import ZERO_SHOT, ModelFacts, Pipeline, stable_hash

__all__ = ["Cell", "expand"]

SHARED = "shared"
GOLDEN = 0.618034
BATCH_SIZE = "per_device_train_batch_size"
SMALLEST_BATCH = 4
CHARACTERS_PER_TOKEN = 3.0
TEMPLATE_TOKENS = 12
"""Gives a guess of an example's tokens without a tokenizer, for the choice of batch and full length alone."""


@dataclass(frozen=True)
class Cell:
    """One run to collect.

    Args:
        id: Id of the run: a hash of data, weights, pipeline, seed, amounts, type, device and exclusiveness.
        model: What ``--model`` takes.
        dataset: What ``--data`` takes, and the metric.
        pipeline: Method and hyperparameters.
        seed: Seed of the run.
        full_length_tokens: Horizon of the schedule.
        unique_examples: Training examples it may draw from.
        number: Number of its draw in the plan, the same for every model; -1 where nothing was drawn.
        shared: Whether every dataset of the model has this draw.
        measures_metric: Whether the task's metric is measured too.
        exclusive: Whether nothing else may run on the machine.
    """

    id: str
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


def expand(plan: Plan, *, device: str, progress: Progress) -> list[list[Cell]]:
    """All runs of a plan in balanced order, grouped into chunks of one base model and one dataset.

    Args:
        plan: The plan.
        device: ``cpu``, ``cuda`` or ``cuda:N``; a run is another one on another kind of device.
        progress: Told how far the reading of datasets and models is.

    Raises:
        DataError: A dataset cannot be used.
        ModelError: A base model cannot be used.
    """
    progress.start("Reading the plan's datasets and models", len(plan.datasets) + len(plan.models))
    sources = []
    for dataset in plan.datasets:
        content = data.read(dataset.path, seed=plan.seed)
        sources.append(_source(dataset, content))
        progress.advance(note=content.name)
    series = []
    for choice in plan.models:
        facts = models.describe(models.resolve(choice.path))
        kind = _GridSeries if plan.grid else _Series
        series.append(kind(plan, choice.path, facts, device, choice.runs_per_dataset, len(sources)))
        progress.advance(note=facts.name)
    progress.finish()
    seen: set[str] = set()
    chunks = []
    for visit in visits([one.runs for one in series], len(sources), plan.chunk):
        cells = series[visit.model].cells(visit.dataset, sources[visit.dataset])
        chosen = [cells[slot] for slot in visit.slots if cells[slot].id not in seen]
        seen.update(cell.id for cell in chosen)
        chunks.append(chosen)
    return [chunk for chunk in chunks if chunk]


@dataclass(frozen=True)
class _Source:
    """A dataset of the plan, read."""

    choice: DatasetChoice
    fingerprint: str
    train_examples: int
    example_tokens: float

    def unique_examples(self, levels: Sequence[int | None], place: float) -> int:
        """The subset size at a place between 0 and 1 among those that differ on this dataset."""
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
        self.runs = runs
        self._plan = plan
        self._path = path
        self._facts = facts
        self._kind = device.partition(":")[0]
        self._dtype = choose_dtype(device, facts.width)
        self._datasets = datasets
        self._always = plan.always[:runs]
        sampled = runs - len(self._always)
        self._shared = round(plan.shared * sampled)
        self._own = sampled - self._shared
        self._drawing = Drawing(plan, facts)
        self._known: dict[int, list[Cell]] = {}

    def cells(self, dataset: int, source: _Source) -> list[Cell]:
        """The runs on one dataset, in order."""
        if dataset not in self._known:
            self._known[dataset] = list(self._cells(dataset, source))
        return self._known[dataset]

    def _cells(self, dataset: int, source: _Source) -> Iterator[Cell]:
        """The untouched model, then shared and own draws interleaved; what else is always run lies between,
        elsewhere on each dataset."""
        drawn: list[Cell] = []
        shared = own = 0
        for kind in interleave([self._shared, self._own]):
            if kind == 0:
                # Every dataset starts elsewhere, so that early on all shared draws are met somewhere.
                start = dataset * self._shared // self._datasets
                drawn.append(self._drawn_cell(source, SHARED, (start + shared) % self._shared))
                shared += 1
            else:
                drawn.append(self._drawn_cell(source, "own", own * self._datasets + dataset))
                own += 1
        for place, name in enumerate(self._always):
            cell = self._always_cell(source, name, dataset + place)
            if name == ZERO_SHOT.method:
                # Losses are learned relative to the untouched model's: without it no other run teaches any.
                yield cell
                continue
            turn = (dataset * GOLDEN + place / len(self._always)) % 1
            drawn.insert(int(turn * (len(drawn) + 1)), cell)
        yield from drawn

    def _drawn_cell(self, source: _Source, stream: str, number: int) -> Cell:
        draw = self._with_enough_steps(source, self._drawing.draw(stream, number), SMALLEST_BATCH)
        return self._cell(source, draw, number, shared=stream == SHARED)

    def _with_enough_steps(self, source: _Source, draw: Drawn, least_batch: int) -> Drawn:
        """The draw with a full length just long enough, then a batch just small enough, for enough steps."""
        step_tokens = source.example_tokens * self._plan.least_steps
        lengths = sorted(n for n in self._plan.full_lengths if n >= draw.full_length_tokens)
        length = next((n for n in lengths if n >= step_tokens * least_batch), lengths[-1])
        values = dict(draw.pipeline.hyperparameters)
        batch = int(draw.pipeline.number(BATCH_SIZE))
        while batch > least_batch and length < step_tokens * batch:
            batch //= 2
        pipeline = Pipeline(draw.pipeline.method, {**values, BATCH_SIZE: batch})
        return replace(draw, pipeline=pipeline, full_length_tokens=length)

    def _always_cell(self, source: _Source, name: str, turn: int) -> Cell:
        lengths = sorted(self._plan.full_lengths)
        pipeline = {
            "zero-shot": ZERO_SHOT,
            "expert": expert_pipeline(self._facts),
            "expert-3e-4": Pipeline(EXPERT.method, {**EXPERT.hyperparameters, "learning_rate": 3e-4}),
        }[name]
        if name == "zero-shot":
            draw = Drawn(pipeline, lengths[-1], 1.0, self._plan.seeds[0])
        else:
            draw = Drawn(pipeline, lengths[turn % len(lengths)], turn * GOLDEN % 1, self._plan.seeds[0])
            draw = self._with_enough_steps(source, draw, int(pipeline.number(BATCH_SIZE)))
        return self._cell(source, draw, -1, shared=True)

    def _cell(self, source: _Source, draw: Drawn, number: int, *, shared: bool) -> Cell:
        plan, pipeline = self._plan, draw.pipeline
        unique_examples = source.unique_examples(plan.unique_examples, draw.unique_level)
        identity = stable_hash(
            {
                "data": source.fingerprint,
                "model": self._facts.weights_hash or self._facts.name,
                "method": pipeline.method,
                "hyperparameters": dict(pipeline.hyperparameters),
                "seed": draw.seed,
                "full_length_tokens": draw.full_length_tokens,
                "unique_examples": unique_examples,
                "dtype": self._dtype,
                "device": self._kind,
                "exclusive": plan.exclusive,
            }
        )
        chance = int(identity[:8], 16) / 16**8
        metric = source.choice.metric != "loss"
        return Cell(
            id=identity,
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
        # In a random order, so that an interrupted collection holds a fair sample of every factor.
        np.random.default_rng(plan.seed).shuffle(self._draws)
        self.runs = min(runs, len(self._draws))

    def _cells(self, dataset: int, source: _Source) -> Iterator[Cell]:
        for number, draw in enumerate(self._draws):
            yield self._cell(source, draw, number, shared=True)

    def _grid_pipeline(self, wanted: GridPipeline) -> Pipeline:
        rate = float(f"{adapter_rate(self._facts) * wanted.rate:.4g}")
        fixed = {**wanted.hyperparameters, "learning_rate": rate}
        return expert_pipeline(self._facts, Restrictions((wanted.method,), fixed=fixed))
