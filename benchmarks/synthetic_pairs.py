"""Measures what pairs made from documents are worth, by questions that people wrote about these documents.

    python benchmarks/synthetic_pairs.py DOCUMENTS... --model MODEL [--writer WRITER] [--page PAGE.md]

The questions are what the documents state themselves: definitions, docstrings, and questions with answers.
Up to half of them are kept back for scoring. The ways: the *untouched* model, without and with the paragraph
that states the answer before the question (*passage*); and LoRA with the baseline's hyperparameters on pairs
that are *extractive* (the other questions), *unfiltered* (all that the writer made in the right form) or
*filtered* (those that the checks kept), by the number of pairs. A way that has fewer pairs than a size is
left out there. What a training delivers is scored, which is the base model if validation prefers that.
Without --writer only the ways that need none are run. Results go to --results, one line for each run, and a
second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from tunecast.api import evaluate, train
from tunecast.documents import Document, read_documents
from tunecast.methods import BASELINE
from tunecast.progress import Silent
from tunecast.session.settings import SessionSettings
from tunecast.synth import SynthFiles, SynthReport, SynthSettings, WriterSettings, synthesize
from tunecast_benchmarks.page_figures import replace_figures

RESULTS = Path(__file__).parent / "results" / "synthetic_pairs.jsonl"
SIZES = (100, 300, 1000)
TESTED = 200
VALIDATED = 50
EPOCHS = 3.0
METRIC = "token_f1"
TRAINED = ("extractive", "unfiltered", "filtered")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: a way with a number of pairs and a seed; the base model has 0 pairs."""

    model: str
    way: str
    pairs: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Test loss in nats per token, token F1 in percent, and how many questions were asked."""

    loss: float
    f1: float
    questions: int


class Study:
    """The pairs by way, and the questions that were kept back."""

    def __init__(self, model: str, documents: Sequence[str], writer: str, work: Path, most: int) -> None:
        self.model = model
        stated = SynthSettings(tuple(documents), str(work / "stated.jsonl"), 10**6, resume=True)
        synthesize(stated)
        texts = {one.name: one.text for one in read_documents(documents) if isinstance(one, Document)}
        rows = [with_passage(row, texts) for row in _shuffled(_rows(work / "stated.jsonl"), 0)]
        half = min(len(rows) // 2, TESTED + VALIDATED)
        self.test, self.validation = rows[: half - half // 5], rows[half - half // 5 : half]
        self.pairs: dict[str, list[Row]] = {"extractive": rows[half:]}
        self.report: SynthReport | None = None
        if writer:
            written = SynthSettings(
                tuple(documents),
                str(work / "written.jsonl"),
                most,
                writer=WriterSettings(writer),
                resume=True,
            )
            self.report = synthesize(written)
            files = SynthFiles(work / "written.jsonl")
            kept = _rows(files.pairs)
            dropped = [row for row in _rows(files.dropped) if row["reason"] != "malformed"]
            self.pairs["filtered"] = _shuffled(kept, 0)
            self.pairs["unfiltered"] = _shuffled([*kept, *dropped], 0)

    def cells(self, sizes: Sequence[int], seeds: int) -> Iterator[Cell]:
        """Name the runs, those of few pairs first."""
        name = Path(self.model).name
        yield Cell(name, "untouched", 0, 0)
        yield Cell(name, "passage", 0, 0)
        for size in sizes:
            for way in TRAINED:
                if len(self.pairs.get(way, ())) >= size:
                    yield from (Cell(name, way, size, seed) for seed in range(seeds))

    def run(self, cell: Cell) -> Outcome:
        """Make one run and score it on the questions that were kept back."""
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            in_context = cell.way == "passage"
            chosen = self.pairs.get(cell.way, self.pairs["extractive"])
            _write(data, "train", _shuffled(chosen, cell.seed)[: cell.pairs or VALIDATED])
            _write(data, "validation", self.validation, in_context=in_context)
            _write(data, "test", self.test, in_context=in_context)
            settings = SessionSettings(
                self.model,
                str(data),
                objective="loss",
                output_dir=str(Path(folder) / "out"),
                epochs=EPOCHS,
                seed=cell.seed,
                threads=1,
                executor="in-process",
                test_examples="all",
                forecast=False,
            )
            if cell.pairs:
                train(settings, BASELINE, progress=Silent())
                settings = replace(settings, model=settings.output_dir)
            # Only here are answers generated, which takes most of the time.
            found = evaluate(replace(settings, objective=METRIC), progress=Silent()).score
        assert found.metric is not None
        return Outcome(found.loss, 100 * found.metric, len(self.test))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--writer", default="", help="a model or a server, as for tunecast synth")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("synthetic-pairs"), help="folder of the pairs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced")
    chosen = parser.parse_args(arguments)
    chosen.work.mkdir(parents=True, exist_ok=True)
    sizes = [int(size) for size in chosen.sizes.split(",")]
    known = read(chosen.results)
    study = Study(chosen.model, chosen.documents, chosen.writer, chosen.work, max(sizes))
    if study.report is not None:
        print(study.report)
    for cell in study.cells(sizes, chosen.seeds):
        if cell not in known:
            known[cell] = study.run(cell)
            with chosen.results.open("a") as stream:
                stream.write(json.dumps(asdict(cell) | asdict(known[cell])) + "\n")
            print(cell, known[cell], flush=True)
    if chosen.page:
        replace_figures(chosen.page, show(known))


def read(file: Path) -> dict[Cell, Outcome]:
    """Read the results of earlier calls."""
    lines = file.read_text().splitlines() if file.exists() else []
    names = set(Cell.__dataclass_fields__)
    found = {}
    for values in map(json.loads, lines):
        cell = Cell(**{name: value for name, value in values.items() if name in names})
        found[cell] = Outcome(**{name: value for name, value in values.items() if name not in names})
    return found


def show(known: Mapping[Cell, Outcome]) -> str:
    """Tabulate loss and token F1 by model, way and number of pairs: mean ± deviation (number of seeds)."""
    parts = []
    for model in dict.fromkeys(cell.model for cell in known):
        lines = [f"## {model}", "", "| way | pairs | test loss | token F1 |", "|---|---|---|---|"]
        for way, pairs in dict.fromkeys((cell.way, cell.pairs) for cell in known if cell.model == model):
            found = [
                outcome
                for cell, outcome in known.items()
                if (cell.model, cell.way, cell.pairs) == (model, way, pairs)
            ]
            loss = _spread([one.loss for one in found], 3)
            f1 = _spread([one.f1 for one in found], 1)
            lines.append(f"| {way} | {pairs:,} | {loss} | {f1} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation} ({len(values)})"


def with_passage(row: Row, texts: Mapping[str, str]) -> Row:
    """Add the part of the document that a pair was made from."""
    source = row["source"]
    return {**row, "passage": texts[source["document"]][source["start"] : source["end"]]}


def _rows(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    return Random(seed).sample(rows, len(rows))


def _write(folder: Path, split: str, rows: Sequence[Row], *, in_context: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps(
            {
                "prompt": f"{row['passage']}\n\n{row['prompt']}" if in_context else row["prompt"],
                "completion": row["completion"],
            }
        )
        for row in rows
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
