"""Makes pairs from documents: reads, asks the writer or takes what is stated, checks, splits and writes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.documents import Document, Passage, Stated, Unread, passages, read_documents, stated_pairs
from tunecast.errors import ConfigurationError, DataError
from tunecast.paths import expanded
from tunecast.progress import Progress, Silent
from tunecast.synth.audit import write_audit
from tunecast.synth.checks import REASONS, Checker
from tunecast.synth.entailment import Entailment
from tunecast.synth.files import SynthFiles, SynthReport
from tunecast.synth.journal import Journal
from tunecast.synth.pairs import Made, Pair, split_pairs
from tunecast.synth.prompts import KINDS, Prompts, read_prompts
from tunecast.synth.writers import WriterSettings, open_writer
from tunecast.synth.writing import WritingJob


@dataclass(frozen=True)
class SynthSettings:
    """What to make.

    Args:
        sources: Documents and folders.
        output: File of the pairs, ending in ``.jsonl``.
        pairs: Maximum number of pairs to keep.
        kinds: Some of :data:`~tunecast.synth.prompts.KINDS`; without a writer only ``qa``.
        writer: Who writes the pairs; None to take those that the documents state.
        prompts: Folder of the user's prompts, empty for Tunecast's own.
        examples: File of pairs that steer the writer's style, empty for none.
        labels: Labels of a classification, empty for the usual ones.
        entailment: Classifier for natural language inference that has to find pairs entailed; empty for none.
        round_trip: Whether the writer has to answer its questions alike with the passage, and not without.
        audit: Pairs on a page for a person to mark, 0 for no page.
        budget: Seconds of this call for writing, None for no limit.
        model: Model to be finetuned, whose context limits the length of pairs; empty for no limit.
        device: Where models on this machine compute: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of the choice among pairs and of the splits.
        resume: Whether an earlier output may be continued or replaced.
    """

    sources: tuple[str, ...]
    output: str
    pairs: int = 500
    kinds: tuple[str, ...] = ("qa",)
    writer: WriterSettings | None = None
    prompts: str = ""
    examples: str = ""
    labels: tuple[str, ...] = ()
    entailment: str = ""
    round_trip: bool = True
    audit: int = 0
    budget: float | None = None
    model: str = ""
    device: str = "auto"
    seed: int = 0
    resume: bool = False


def synthesize(settings: SynthSettings, progress: Progress | None = None) -> SynthReport:
    """Make pairs from documents and write them, with what was dropped and a report beside them.

    Raises:
        UserError: A setting is wrong, a document cannot be read, or no pair was kept.
    """
    progress = progress or Silent()
    begun = time.monotonic()
    files = SynthFiles(expanded(settings.output))
    _check_kinds(settings)
    prompts = _prompts(settings)
    files.check(resume=settings.resume, with_audit=settings.audit > 0)
    entails = Entailment(settings.entailment, settings.device).holds if settings.entailment else None
    documents, unread = _read(settings.sources, progress)
    checker = Checker(_fitting(settings.model), entails)
    if settings.writer is None:
        made, wrote = _extract(documents, checker, settings), _Wrote()
    else:
        made, wrote = _write(documents, checker, settings, prompts, files, progress)
    if not made.kept:
        raise _nothing_kept(made, settings)
    splits, split_by = split_pairs(made.kept, settings.seed)
    report = SynthReport(
        documents=tuple(document.name for document in documents),
        unread={one.name: one.reason for one in unread},
        notes=(*(f"{one.name}: {note}" for one in documents for note in one.notes), *wrote.notes),
        passages=sum(len(passages(document)) for document in documents),
        made=len(made.kept) + len(made.dropped) + made.left,
        kept=dict(Counter(splits)),
        dropped=_counted(made.dropped),
        left=made.left,
        split_by=split_by,
        made_by=dict(Counter(pair.made_by for pair in made.kept)),
        prompts=dict(prompts.texts) if settings.writer else {},
        requests=wrote.requests,
        requests_before=wrote.before,
        seconds=time.monotonic() - begun,
    )
    rows = ({**pair.as_row(), "split": split} for pair, split in zip(made.kept, splits, strict=True))
    files.write(rows, ({**pair.as_row(), "reason": reason} for pair, reason in made.dropped), report)
    if settings.audit:
        write_audit(made, settings.audit, settings.seed, files.audit)
    return report


def _check_kinds(settings: SynthSettings) -> None:
    kinds = settings.kinds
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigurationError(
            f"--kinds: there is no kind {unknown[0]!r}." if unknown else "--kinds names no kind.",
            f"Known: {', '.join(KINDS)}.",
        )
    if settings.writer is None and set(kinds) != {"qa"}:
        raise ConfigurationError(
            f"--kinds {','.join(kinds)}: without a writer, only qa can be made.",
            "Name one with --writer, or leave --kinds out.",
        )


def _prompts(settings: SynthSettings) -> Prompts:
    """Read the prompts before any document, so that a mistake in them costs no time."""
    folder = expanded(settings.prompts) if settings.prompts and settings.writer else None
    examples = expanded(settings.examples) if settings.examples else None
    return read_prompts(settings.kinds, folder, examples, settings.labels)


def _read(sources: Sequence[str], progress: Progress) -> tuple[list[Document], list[Unread]]:
    """Read all documents. A folder whose documents are all unreadable is an error."""
    progress.start("Reading documents", unit="documents")
    documents: list[Document] = []
    unread: list[Unread] = []
    for one in read_documents(sources):
        if isinstance(one, Unread):
            unread.append(one)
            progress.log(f"Note: not read: {one.reason}")
        else:
            documents.append(one)
            for note in one.notes:
                progress.log(f"Note: {one.name}: {note}")
        progress.advance(1, one.name)
    progress.finish(f"{len(documents):,} read, {len(unread):,} not")
    if not documents:
        raise DataError(
            f"None of the {len(unread)} documents can be read. The first: {unread[0].reason}",
            "Give documents with text.",
        )
    return documents, unread


def _fitting(model: str) -> Any:
    """Return a check whether a pair fits in the context of ``model``, None without one."""
    if not model:
        return None
    from tunecast.models import context_of, load_config, load_tokenizer, resolve

    resolved = resolve(model)
    tokenizer, context = load_tokenizer(resolved), context_of(load_config(resolved))
    if context is None:
        return None

    def fits(pair: Pair) -> bool:
        turns = [
            {"role": "user", "content": pair.whole_prompt},
            {"role": "assistant", "content": pair.completion},
        ]
        if tokenizer.chat_template:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        else:
            text = f"{pair.whole_prompt} {pair.completion}"
        return len(tokenizer(text).input_ids) <= context

    return fits


@dataclass(frozen=True)
class _Wrote:
    """What the writer did: notes, requests that it answered, and requests that its journal answered."""

    notes: tuple[str, ...] = ()
    requests: int = 0
    before: int = 0


def _write(
    documents: Sequence[Document],
    checker: Checker,
    settings: SynthSettings,
    prompts: Prompts,
    files: SynthFiles,
    progress: Progress,
) -> tuple[Made, _Wrote]:
    """Have the writer make pairs until there are enough or the budget is spent."""
    assert settings.writer is not None
    progress.start("Opening the writer")
    writer = open_writer(settings.writer, settings.device)
    progress.finish(writer.name)
    ends = None if settings.budget is None else time.monotonic() + settings.budget

    def is_over() -> bool:
        return ends is not None and time.monotonic() >= ends

    job = WritingJob(
        prompts,
        tuple(dict.fromkeys(settings.kinds)),
        settings.pairs,
        settings.seed,
        settings.round_trip,
        is_over,
    )
    try:
        with Journal(files.journal, writer, is_over) as journal:
            made = job.write(documents, checker, journal, progress, writer.at_once)
            return made, _Wrote(tuple(job.notes), journal.asked, journal.found)
    finally:
        writer.close()


def _extract(documents: Sequence[Document], checker: Checker, settings: SynthSettings) -> Made:
    """Take what the documents state; of more than enough, a seeded sample in the documents' order."""
    kept: list[Pair] = []
    dropped: list[tuple[Pair, str]] = []
    for pair in _stated(documents):
        reason = checker.reason(pair)
        if reason:
            dropped.append((pair, reason))
        else:
            kept.append(pair)
    drawn = sorted(range(len(kept)), key=lambda at: _draw(settings.seed, kept[at]))[: settings.pairs]
    return Made([kept[at] for at in sorted(drawn)], dropped, len(kept) - len(drawn))


def _stated(documents: Sequence[Document]) -> Iterator[Pair]:
    for document in documents:
        for stated in stated_pairs(document):
            yield Pair(stated.question, stated.answer, "qa", stated.recipe, _passage(document, stated))


def _passage(document: Document, stated: Stated) -> Passage:
    block = stated.block
    pages = None if block.page is None else (block.page, block.page)
    return Passage(document.name, block.headings, block.text, block.start, pages)


def _draw(seed: int, pair: Pair) -> bytes:
    return hashlib.sha256(f"{seed}\n{pair.prompt}\n{pair.completion}".encode(errors="replace")).digest()


def _counted(dropped: Sequence[tuple[Pair, str]]) -> dict[str, int]:
    counts = Counter(reason for _, reason in dropped)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _nothing_kept(made: Made, settings: SynthSettings) -> DataError:
    if settings.writer is not None:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in _counted(made.dropped).items())
        what = f": {counts}" if counts else ""
        return DataError(
            f"No pair was kept of {len(made.dropped):,} that the writer made{what}.",
            "Try a larger writer, a longer --budget, or no --writer: documents may state pairs themselves. "
            "With --resume nothing is asked twice.",
        )
    if not made.dropped:
        return DataError(
            "The documents state no question and answer: no definition, docstring, question or heading "
            "with a paragraph.",
            "Give more documents.",
        )
    counts = ", ".join(f"{count} {reason}" for reason, count in _counted(made.dropped).items())
    return DataError(f"No pair was kept of {len(made.dropped)}: {counts}.", "Give more documents.")
