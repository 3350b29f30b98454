"""The design of arXiv 2402.17193 in small: what the runs of ``plans/study.yaml`` say about its claims.

    python benchmarks/scaling_study.py --store URL [--output docs/scaling-study.md]

Prints every figure of the study as Markdown, from whatever runs the store holds: curves and families that are
not complete are left out and counted. With ``--output`` the part of that file between its two markers is
replaced. All fits, posteriors and crossings are those of ``tunecast.scaling``. Arrays are small: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from tunecast.records import Outcome, Run
from tunecast.scaling import LAWS, Crossing, Curve, Row, Table, build_table, crossover
from tunecast.scaling.arrays import Floats
from tunecast.scaling.fitting import QUICK, fit_theta
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.laws import JOINT
from tunecast.scaling.newcomers import curve_at
from tunecast.scaling.observations import observe
from tunecast.scaling.sampling import sample
from tunecast.store import Store

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
METHODS = ("full", "lora", "prompt_tuning")
AMOUNT = {"lora": "lora_r", "prompt_tuning": "num_virtual_tokens"}
COMPARED = {"full": 0, "lora": 8, "prompt_tuning": 16}
"""The one pipeline of each method that crossovers compare, named before any result was seen."""
MEASURES = {"test": "final test loss", "stopped": "early-stopped validation loss"}
REACH = 4.0
"""Crossings are sought up to this factor beyond the measured sizes."""
LIKELY = 0.95
SLOT = "model_parameters"
"""Tables here have one factor X. Whatever it is, it stands in this column: the package draws new curves by
it."""


@dataclass(frozen=True)
class Cell:
    """One completed run: what was varied, and its two losses.

    Args:
        task: The dataset.
        model: The base model.
        method: The method.
        amount: LoRA rank or prompt length, 0 for full.
        planned: Unique examples that the run might draw from.
        data_size: Those that it saw.
        parameters: The model's parameters.
        body: Those outside the embeddings.
        pretraining: Pretraining tokens.
        last: Whether no model of this size has seen more of them.
        losses: The loss by measure.
        noise: Half the 95% interval of the log test loss.
    """

    task: str
    model: str
    method: str
    amount: int
    planned: int
    data_size: int
    parameters: int
    body: int
    pretraining: int
    last: bool
    losses: Mapping[str, float]
    noise: float = 0.0

    @property
    def pipeline(self) -> str:
        """The method and its amount."""
        return f"{self.method} {self.amount}" if self.amount else self.method


@dataclass(frozen=True)
class Factor:
    """One X of a joint law.

    Args:
        name: For tables.
        value: X of a cell.
        group: What else of the model is held fixed.
        chosen: Which cells count.
        of_method: Whether X is the method's own amount, so that a family spans pipelines.
    """

    name: str
    value: Callable[[Cell], float]
    group: Callable[[Cell], str]
    chosen: Callable[[Cell], bool] = lambda cell: True
    of_method: bool = False

    def family(self, cell: Cell) -> str:
        """Cells of one task and method that differ in X and data size alone."""
        return self.group(cell) if self.of_method else f"{cell.amount} {self.group(cell)}"


def _rounded(tokens: int) -> str:
    return f"{tokens:.1e}"


MODEL = Factor("model, last checkpoints", lambda c: c.parameters, lambda c: "last", lambda c: c.last)
BODY = replace(MODEL, name="model without embeddings", value=lambda c: c.body)
EQUAL = Factor("model, equal pretraining", lambda c: c.parameters, lambda c: _rounded(c.pretraining))
PRETRAINING = Factor("pretraining", lambda c: c.pretraining, lambda c: str(c.parameters))
UNANNEALED = replace(PRETRAINING, name="pretraining, not annealed", chosen=lambda c: not c.last)
PEFT = Factor("PEFT", lambda c: c.amount, lambda c: c.model, lambda c: c.amount > 0, of_method=True)
FACTORS = (MODEL, BODY, EQUAL, PRETRAINING, UNANNEALED, PEFT)
HELD_OUT = {"largest size": (True, False), "largest X": (False, True), "both": (True, True)}
RIVALS = ("joint", "additive", "joint-rectified", "nearest")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, help="The store that the plan was collected into.")
    parser.add_argument("--session", default="study", help="Name of the collection; empty for all runs.")
    parser.add_argument("--output", type=Path, help="A Markdown file with the two markers.")
    options = parser.parse_args(arguments)
    with Store.open(options.store, create=False) as store:
        runs = list(store.runs(session=options.session) if options.session else store.runs())
    text = study(runs)
    if options.output is None:
        print(text)
    else:
        insert(options.output, text)


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} lacks the markers {BEGIN} and {END}.")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def study(runs: Sequence[Run]) -> str:
    """All figures, as Markdown."""
    cells = read_cells(runs)
    complete = complete_curves(cells)
    parts = [show_runs(runs, cells, complete)]
    for measure, title in MEASURES.items():
        scores = backtests(complete, measure)
        exponents = measure_exponents(complete, measure)
        parts += [
            f"### Out of sample: {title}",
            show_backtests(scores),
            f"### Exponents: {title}",
            show_exponents(exponents),
            f"### Crossovers: {title}",
            show_winners(complete, measure),
            show_crossovers(crossings(complete, measure)),
        ]
    return "\n\n".join(parts)


# Reading


def read_cells(runs: Iterable[Run]) -> list[Cell]:
    """The completed and tested runs, one of each setting (the first)."""
    done = [
        r
        for r in runs
        if r.outcome is Outcome.COMPLETED and r.test is not None and r.pipeline.method in METHODS
    ]
    most: dict[int, int] = {}
    for run in done:
        size, tokens = run.model.parameters, run.model.pretraining_tokens or 0
        most[size] = max(most.get(size, 0), tokens)
    cells: dict[tuple[str, str, str, int], Cell] = {}
    for run in done:
        cell = _cell(run, most[run.model.parameters])
        cells.setdefault((cell.task, cell.model, cell.pipeline, cell.planned), cell)
    return list(cells.values())


def _cell(run: Run, most_tokens: int) -> Cell:
    method, tokens = run.pipeline.method, run.model.pretraining_tokens or 0
    best = run.best_point
    if run.test is None or best is None:
        raise ValueError(f"run {run.id} has no test score or no curve")
    known = run.test.loss_low is not None and run.test.loss_high is not None
    return Cell(
        run.task.dataset,
        run.task.model,
        method,
        int(run.pipeline.number(AMOUNT[method])) if method in AMOUNT else 0,
        run.unique_examples,
        examples_seen(run),
        run.model.parameters,
        run.model.parameters - run.model.embedding_parameters,
        tokens,
        tokens == most_tokens,
        {"test": run.test.loss, "stopped": best.validation.loss},
        float(np.log((run.test.loss_high or 1) / (run.test.loss_low or 1)) / 2) if known else 0.0,
    )


def examples_seen(run: Run) -> int:
    """Unique examples that a run trained on: all it had, unless its schedule ended within the first epoch.

    Batches of an epoch share no example (``training/plan.py``); its one short batch may make this too large
    by less than a batch.
    """
    return min(run.unique_examples, run.total_steps * int(run.pipeline.number("per_device_train_batch_size")))


def complete_curves(cells: Sequence[Cell]) -> list[Cell]:
    """Cells of the curves that have as many sizes as the fullest curve of their task."""
    counts = Counter(_curve_key(cell) for cell in cells)
    fullest = max(counts.values(), default=0)
    return [cell for cell in cells if counts[_curve_key(cell)] == fullest >= 3]


def _curve_key(cell: Cell) -> tuple[str, str, str]:
    return cell.task, cell.model, cell.pipeline


def keys_of(cells: Iterable[Cell], methods: Sequence[str] = METHODS) -> list[tuple[str, str]]:
    """The (method, task) groups there are."""
    tasks = sorted({cell.task for cell in cells})
    return list(product(methods, tasks))


def factor_table(cells: Sequence[Cell], factor: Factor, method: str, task: str, measure: str) -> Table | None:
    """The complete families of one method and task as a table whose only factor is X, None without any.

    A family is complete when it has every X that any task has for this factor, method and group, and at least
    two.
    """
    wanted: dict[str, set[float]] = {}
    families: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.method != method or not factor.chosen(cell):
            continue
        wanted.setdefault(factor.group(cell) if not factor.of_method else "", set()).add(factor.value(cell))
        if cell.task == task:
            families.setdefault(factor.family(cell), []).append(cell)
    rows = []
    for family, members in families.items():
        expected = wanted[factor.group(members[0]) if not factor.of_method else ""]
        if len(expected) >= 2 and {factor.value(cell) for cell in members} == expected:
            labels = {"method": method, "pipeline": family}
            rows += [
                Row(cell.losses[measure], cell.data_size, labels, {SLOT: float(factor.value(cell))})
                for cell in members
            ]
    return build_table(rows, ["pipeline"], f"{factor.name}, {method}, {task}") if rows else None


def families_of(table: Table) -> list[list[Curve]]:
    """The curves of a table by family, smallest X first."""
    members: dict[str, list[Curve]] = {}
    for curve in table.curves:
        members.setdefault(curve.labels["pipeline"], []).append(curve)
    return [sorted(curves, key=lambda curve: curve.factors[SLOT]) for curves in members.values()]


def show_runs(runs: Sequence[Run], cells: Sequence[Cell], complete: Sequence[Cell]) -> str:
    """How much of the design is there."""
    outcomes = Counter(run.outcome.value for run in runs)
    curves, whole = (len({_curve_key(cell) for cell in part}) for part in (cells, complete))
    tasks = sorted({cell.task for cell in cells})
    models = sorted({(c.parameters, c.pretraining, c.model, c.body) for c in cells})
    rows = []
    for parameters, pretraining, model, body in models:
        counts = [f"{sum(c.task == task and c.model == model for c in cells)}" for task in tasks]
        rows.append(
            [model, f"{parameters / 1e6:.1f}M", f"{body / 1e6:.1f}M", f"{pretraining / 1e6:.0f}M", *counts]
        )
    ends = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(outcomes.items()))
    noise = np.median([cell.noise for cell in cells]) if cells else 0.0
    sizes = "; ".join(f"{task}: {_sizes(cells, task)}" for task in tasks)
    return "\n\n".join(
        [
            "### What is there",
            f"{len(runs)} runs ({ends}), {len(cells)} distinct cells with a test loss. Of {curves} curves "
            f"over data size {whole} are complete; {curves - whole} are left out of everything below. Unique "
            f"examples really seen: {sizes}. Half the 95% interval of one test loss is {noise:.1%} of it "
            "(median).",
            markdown(["model", "parameters", "without embeddings", "pretraining tokens", *tasks], rows),
        ]
    )


def _sizes(cells: Sequence[Cell], task: str) -> str:
    spans: dict[int, list[int]] = {}
    for cell in cells:
        if cell.task == task:
            spans.setdefault(cell.planned, []).append(cell.data_size)
    shown = [(min(seen), max(seen)) for _, seen in sorted(spans.items())]
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in shown)


# 1. Out of sample


@dataclass(frozen=True)
class Target:
    """A measured point that no law saw: its family and X, its size and log loss."""

    family: str
    factor: float
    data_size: float
    log_loss: float


@dataclass(frozen=True)
class Backtest:
    """Mean absolute errors of log loss, by law, of one group at one way of holding out."""

    factor: str
    held_out: str
    method: str
    task: str
    points: int
    errors: Mapping[str, float]


def backtests(cells: Sequence[Cell], measure: str) -> list[Backtest]:
    """Every factor, every way of holding out, every (method, task) group with families of three X or more."""
    results = []
    for factor, (method, task) in product((MODEL, PRETRAINING, PEFT), keys_of(cells)):
        table = factor_table(cells, factor, method, task, measure)
        curves = [c for members in families_of(table) if len(members) >= 3 for c in members] if table else []
        for name, (hide_size, hide_factor) in HELD_OUT.items():
            if curves:
                visible, targets = hold_out(Table(tuple(curves)), hide_size, hide_factor)
                errors = {law: score(law, visible, targets) for law in RIVALS}
                results.append(Backtest(factor.name, name, method, task, len(targets), errors))
    return results


def hold_out(table: Table, hide_size: bool, hide_factor: bool) -> tuple[Table, list[Target]]:
    """The table without each curve's largest size, each family's largest X, or both; and what to predict.

    With both, only the corner is scored: the largest X at the largest size.
    """
    visible, targets = [], []
    for curves in families_of(table):
        for curve in curves:
            hidden = hide_factor and curve is curves[-1]
            smaller = curve.up_to(float(curve.data_sizes[curve.data_sizes < curve.data_sizes[-1]][-1]))
            if not hidden:
                visible.append(smaller if hide_size else curve)
            if hidden or (hide_size and not hide_factor):
                first = smaller.data_sizes.size if hide_size else 0
                targets += [
                    Target(curve.labels["pipeline"], curve.factors[SLOT], float(size), float(np.log(loss)))
                    for size, loss in zip(curve.data_sizes[first:], curve.losses[first:], strict=True)
                ]
    return Table(tuple(visible), table.source), targets


def score(law: str, visible: Table, targets: Sequence[Target]) -> float:
    """Mean absolute error of log loss at the targets."""
    ways = {"nearest": nearest, "joint-rectified": by_population}
    predicted = ways[law](visible, targets) if law in ways else by_formula(law, visible, targets)
    return float(np.mean(np.abs(predicted - np.array([target.log_loss for target in targets]))))


def by_formula(law: str, visible: Table, targets: Sequence[Target]) -> Floats:
    """A joint law fitted to each family as the paper does, evaluated at the targets."""
    member = LAWS[law].members[0]
    data = observe(visible, member.law, factor=SLOT)
    theta = fit_theta(member, data)
    unit = {curve.labels["pipeline"]: int(of) for curve, of in zip(visible.curves, data.unit, strict=True)}
    log_size = np.log([[target.data_size] for target in targets]) - data.frame.log_size
    log_factor = np.log([[target.factor] for target in targets]) - data.frame.log_factor
    return member.law.log_loss(theta[[unit[target.family] for target in targets]], log_size, log_factor)[:, 0]


def by_population(visible: Table, targets: Sequence[Target]) -> Floats:
    """The pooled rectified law: a measured curve continues, an unseen X is drawn from the population."""
    part = posteriors(visible, "joint-rectified", effort=QUICK)[0]
    predicted = np.empty(len(targets))
    for family, factor in {(target.family, target.factor) for target in targets}:
        rows = [row for row, curve in enumerate(part.table.curves) if curve.labels["pipeline"] == family]
        at = [i for i, target in enumerate(targets) if (target.family, target.factor) == (family, factor)]
        draws = curve_at(part, rows, factor, np.array([targets[i].data_size for i in at]))
        predicted[at] = np.median(draws, axis=0)
    return predicted


def nearest(visible: Table, targets: Sequence[Target]) -> Floats:
    """No law: the loss at the largest X and size that were seen, up to the target's."""
    predicted = []
    for target in targets:
        family = [c for c in visible.curves if c.labels["pipeline"] == target.family]
        curve = max((c for c in family if c.factors[SLOT] <= target.factor), key=lambda c: c.factors[SLOT])
        predicted.append(np.log(curve.losses[curve.data_sizes <= target.data_size][-1]))
    return np.array(predicted)


def show_backtests(scores: Sequence[Backtest]) -> str:
    """Errors by factor and way of holding out, errors by group, and what they say."""
    if not scores:
        return "No family of three values of X is complete yet."
    ways = list(dict.fromkeys((score.factor, score.held_out) for score in scores))
    first = [_error_row([s for s in scores if (s.factor, s.held_out) == way], way) for way in ways]
    groups = list(dict.fromkeys((score.method, score.task) for score in scores))
    second = [_error_row([s for s in scores if (s.method, s.task) == group], group) for group in groups]
    laws = [*RIVALS, "joint below additive in"]
    return "\n\n".join(
        [
            "Mean absolute error of log loss at held-out points; *nearest* repeats the nearest loss seen.",
            markdown(["X", "held out", "groups", *laws], first),
            markdown(["method", "task", "cases", *laws], second),
            verdict_on_laws(scores),
        ]
    )


def _error_row(scores: Sequence[Backtest], names: tuple[str, str]) -> list[str]:
    means = [f"{np.mean([score.errors[law] for score in scores]):.3f}" for law in RIVALS]
    wins = sum(score.errors["joint"] < score.errors["additive"] for score in scores)
    return [*names, str(len(scores)), *means, f"{wins} of {len(scores)}"]


def verdict_on_laws(scores: Sequence[Backtest]) -> str:
    """Joint against each rival over (method, task) groups, with a bootstrap over groups."""
    groups = list(dict.fromkeys((score.method, score.task) for score in scores))
    sentences = []
    for rival in RIVALS[1:]:
        gains = np.array(
            [
                np.mean([s.errors[rival] - s.errors["joint"] for s in scores if (s.method, s.task) == group])
                for group in groups
            ]
        )
        low, high = bootstrap(gains)
        better = int(np.sum(gains > 0))
        if low > 0:
            verdict = "the multiplicative law is better"
        elif high < 0:
            verdict = "the multiplicative law is worse"
        else:
            verdict = "these runs do not tell them apart"
        sentences.append(
            f"Against {rival}: the multiplicative law has the smaller mean error in {better} of "
            f"{len(groups)} (method, task) groups; the rival's error minus its own is {gains.mean():+.4f} "
            f"[{low:+.4f}, {high:+.4f}]: {verdict}."
        )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def bootstrap(values: Floats, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """90% interval of a mean, values resampled."""
    picked = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picked].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


# 2. Exponents


@dataclass(frozen=True, eq=False)
class Exponent:
    """The effect of one X in one (method, task) group.

    Args:
        families: Families of curves it rests on.
        draws: Posterior of the law's alpha, mean over families.
        change: Mean relative change of the loss per doubling of X, without any law.
        low: Lower end of its 90% interval.
        high: Upper end.
    """

    families: int
    draws: Floats
    change: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """90% interval of alpha."""
        low, high = np.quantile(self.draws, [0.05, 0.95])
        return float(low), float(high)


Exponents = Mapping[tuple[str, str, str], Exponent]
"""By factor, method and task."""


def measure_exponents(cells: Sequence[Cell], measure: str) -> Exponents:
    """Every factor in every group that has a complete family."""
    results: dict[tuple[str, str, str], Exponent] = {}
    for factor, (method, task) in product(FACTORS, keys_of(cells)):
        table = factor_table(cells, factor, method, task, measure)
        if table is not None:
            results[factor.name, method, task] = exponent(table)
    for method, task in keys_of(cells):
        slopes = [_slope(*_logs(group)) for group in _by_curve(cells, method, task, measure)]
        if slopes:
            results["data", method, task] = Exponent(len(slopes), np.full(1, np.nan), *_change(slopes))
    return results


def exponent(table: Table) -> Exponent:
    """Alpha of the joint law with its posterior, and the change per doubling that needs no law."""
    families = families_of(table)
    alpha = np.exp(sample(JOINT, observe(table, JOINT, factor=SLOT), pooled=False).theta[..., 1])
    slopes = []
    for curves in families:
        log_factor = np.log([curve.factors[SLOT] for curve in curves])
        log_loss = np.log([curve.losses for curve in curves])
        slopes += [_slope(log_factor, column) for column in log_loss.T]
    return Exponent(len(families), alpha.mean(axis=1), *_change(slopes))


def _by_curve(cells: Sequence[Cell], method: str, task: str, measure: str) -> list[list[tuple[float, float]]]:
    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for cell in cells:
        if (cell.method, cell.task) == (method, task):
            curves.setdefault(_curve_key(cell), []).append((cell.data_size, cell.losses[measure]))
    return list(curves.values())


def _logs(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    sizes, losses = zip(*points, strict=True)
    return np.log(sizes), np.log(losses)


def _slope(log_factor: Floats, log_loss: Floats) -> float:
    centred = log_factor - log_factor.mean()
    return float(centred @ log_loss / (centred @ centred))


def _change(slopes: Sequence[float]) -> tuple[float, float, float]:
    """Relative change per doubling with its interval over groups, from slopes of log loss."""
    per_doubling = np.exp2(slopes) - 1
    return (float(per_doubling.mean()), *bootstrap(per_doubling))


def show_exponents(exponents: Exponents) -> str:
    """Alpha and the change per doubling, a row for each group, and what they say."""
    groups = list(dict.fromkeys((method, task) for _, method, task in exponents))
    names = [factor.name for factor in FACTORS]
    alphas = [[*group, *(_alpha(exponents.get((name, *group))) for name in names)] for group in groups]
    changes = [
        [*group, *(_percent(exponents.get((name, *group))) for name in [*names, "data"])] for group in groups
    ]
    return "\n\n".join(
        [
            "Alpha of the multiplicative law: posterior median and 90% interval, mean over families. The "
            "prior alone says 0.15 [0.02, 0.94]; an interval as wide as that has learned nothing.",
            markdown(["method", "task", *names], alphas),
            "Change of the loss per doubling in percent, without a law (90% by bootstrap of families, sizes).",
            markdown(["method", "task", *names, "data"], changes),
            "\n".join(f"- {line}" for line in verdicts_on_exponents(exponents)),
        ]
    )


def _alpha(found: Exponent | None) -> str:
    if found is None:
        return "-"
    low, high = found.interval
    return f"{np.median(found.draws):.2f} [{low:.2f}, {high:.2f}]"


def _percent(found: Exponent | None) -> str:
    return (
        "-"
        if found is None
        else f"{100 * found.change:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    )


def verdicts_on_exponents(exponents: Exponents) -> list[str]:
    """Every comparison that the paper makes, counted over groups."""
    pairs = [(MODEL, PRETRAINING), (BODY, PRETRAINING), (EQUAL, PRETRAINING), (EQUAL, UNANNEALED)]
    lines = [_compare(exponents, one.name, other.name) for one, other in pairs]
    lines += [_compare(exponents, name, PEFT.name) for name in (EQUAL.name, PRETRAINING.name)]
    for name in [factor.name for factor in FACTORS] + ["data"]:
        for method in METHODS:
            found = [e for (factor, of, _), e in exponents.items() if (factor, of) == (name, method)]
            if found:
                falls, rises = sum(e.high < 0 for e in found), sum(e.low > 0 for e in found)
                lines.append(
                    f"A doubling of {name} changes the loss of {method} by "
                    f"{100 * np.mean([e.change for e in found]):+.1f}% (mean of {len(found)} tasks): clearly "
                    f"lower in {falls}, clearly higher in {rises}."
                )
    return [line for line in lines if line]


def _compare(exponents: Exponents, one: str, other: str) -> str:
    both = [(m, t) for f, m, t in exponents if f == one and (other, m, t) in exponents]
    if not both:
        return ""
    larger = clearly = clearly_not = steeper = 0
    for group in both:
        first, second = exponents[one, *group], exponents[other, *group]
        size = min(len(first.draws), len(second.draws))
        share = float(np.mean(first.draws[:size] > second.draws[:size]))
        larger += share > 0.5
        clearly += share >= LIKELY
        clearly_not += share <= 1 - LIKELY
        steeper += first.change < second.change
    return (
        f"Alpha of *{one}* is above that of *{other}* in {larger} of {len(both)} (method, task) groups "
        f"(clearly above in {clearly}, clearly below in {clearly_not}); "
        f"a doubling lowers the loss more in {steeper}."
    )


# 3. Crossovers


def chosen_pipelines(cells: Iterable[Cell]) -> list[Cell]:
    """The one pipeline of each method that is compared."""
    return [cell for cell in cells if cell.amount == COMPARED[cell.method]]


def crossings(cells: Sequence[Cell], measure: str) -> dict[str, tuple[Crossing, ...]]:
    """The package's crossovers of every two methods on every model, by task."""
    results = {}
    for task in sorted({cell.task for cell in cells}):
        rows = [
            Row(
                c.losses[measure],
                c.data_size,
                {"method": c.method, "model": c.model},
                {SLOT: float(c.parameters)},
            )
            for c in chosen_pipelines(cells)
            if c.task == task
        ]
        if len({row.labels["method"] for row in rows}) > 1:
            table = build_table(rows, ["method", "model"], task)
            results[task] = crossover(table, law="joint-rectified", reach=REACH)
    return results


def show_winners(cells: Sequence[Cell], measure: str) -> str:
    """Which method was measured best, by data size: no law."""
    settings: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for cell in chosen_pipelines(cells):
        sizes = settings.setdefault((cell.task, cell.model), {})
        sizes.setdefault(cell.planned, {})[cell.method] = cell.losses[measure]
    counts: dict[int, Counter[str]] = {}
    for sizes in settings.values():
        for place, (_, losses) in enumerate(sorted(sizes.items())):
            if len(losses) == len(METHODS):
                counts.setdefault(place, Counter())[min(losses, key=lambda method: losses[method])] += 1
    rows = [
        [_ordinal(place, len(counts)), *(str(count[m]) for m in METHODS)]
        for place, count in sorted(counts.items())
    ]
    compared = ", ".join(f"{method} {amount}" if amount else method for method, amount in COMPARED.items())
    return "\n\n".join(
        [
            f"How often each method was measured best over tasks and models ({compared}).",
            markdown(["data size", *METHODS], rows),
        ]
    )


def _ordinal(place: int, count: int) -> str:
    names = {0: "smallest", count - 1: "largest"}
    return names.get(place, f"{place + 1} of {count}")


def show_crossovers(found: Mapping[str, tuple[Crossing, ...]]) -> str:
    """A cell for every pair of methods on every model and task, and counts."""
    if not found:
        return "No two methods are complete on one model yet."
    pairs: dict[tuple[str, str], dict[tuple[str, str], Crossing]] = {}
    for task, entries in found.items():
        for entry in entries:
            pair = (str(entry.first["method"]), str(entry.second["method"]))
            if METHODS.index(pair[0]) > METHODS.index(pair[1]):
                pair = pair[::-1]
            pairs.setdefault(pair, {})[task, str(entry.first["model"])] = entry
    order = sorted(pairs, key=lambda pair: (METHODS.index(pair[0]), METHODS.index(pair[1])))
    settings = sorted({setting for entries in pairs.values() for setting in entries})
    rows = [[*setting, *(_crossing(pairs[pair].get(setting)) for pair in order)] for setting in settings]
    return "\n\n".join(
        [
            "Where one method overtakes another, in unique examples with 90% intervals, sought up to "
            f"{REACH:g} times beyond the measured sizes; in brackets the share of the posterior that has a "
            "crossing there.",
            markdown(["task", "model", *(f"{one} / {other}" for one, other in order)], rows),
            "\n".join(f"- {verdict_on_pair(pair, list(pairs[pair].values()))}" for pair in order),
        ]
    )


def _method(name: str) -> str:
    """The method in a root's name, ``method, model``."""
    return name.split(",")[0]


def _crossing(entry: Crossing | None) -> str:
    if entry is None:
        return "-"
    if not entry.roots:
        return f"{_winner(entry)} everywhere ({entry.probability:.0%})"
    steps = [
        f"{_method(r.better_above)} from {r.data_size:.0f} [{r.low:.0f}, {r.high:.0f}]" for r in entry.roots
    ]
    return f"{'; '.join(steps)} ({entry.probability:.0%})"


def _winner(entry: Crossing) -> str:
    """Who is better everywhere; the package says it in words."""
    return _method(entry.reason.partition("none in range: ")[2])


def verdict_on_pair(pair: tuple[str, str], entries: Sequence[Crossing]) -> str:
    """How often two methods cross, which way, and who wins where they do not."""
    crossed = [entry for entry in entries if entry.roots]
    likely = sum(entry.probability >= LIKELY for entry in crossed)
    above = Counter(_method(entry.roots[-1].better_above) for entry in crossed)
    never = Counter(_winner(entry) for entry in entries if not entry.roots)
    ways = (
        ", ".join(f"{name} is better with more data in {count}" for name, count in above.most_common())
        or "none"
    )
    rest = ", ".join(f"{name} in {count}" for name, count in never.most_common()) or "none"
    return (
        f"{pair[0]} / {pair[1]}: a crossing in {len(crossed)} of {len(entries)} settings ({ways}), of which "
        f"{likely} have a posterior probability of at least {LIKELY:.0%}. Better everywhere in range: {rest}."
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
