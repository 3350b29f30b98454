"""Has a writer make pairs passage by passage, and keeps those that pass the checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunecast.documents import Document, Passage, passages
from tunecast.progress import Progress
from tunecast.synth.checks import Checker
from tunecast.synth.journal import Journal
from tunecast.synth.pairs import Made, Pair
from tunecast.synth.prompts import Prompts
from tunecast.training.metrics import token_f1

MAX_TOKENS = 256
"""Longest answer of the writer in tokens."""
MAX_ANSWER_TOKENS = 64
"""Longest answer of the round trip."""
STALE_REQUESTS = 64
"""If the answers to this many requests in a row give no pair, further ones would be as useless."""
ALIKE = 0.5
"""Token F1 from which the answer with the passage agrees with the completion."""
GUESSED = 0.8
"""Token F1 from which the answer without the passage makes the pair one that teaches nothing."""


@dataclass
class WritingJob:
    """One job of writing.

    Args:
        prompts: What the writer is asked with.
        kinds: Kinds of pairs to ask for.
        most: Pairs to keep; no further request is sent then.
        seed: Seed of the order of passages.
        round_trip: Whether the writer has to answer alike with the passage, and not without it.
        is_over: Says whether the budget is spent.
    """

    prompts: Prompts
    kinds: Sequence[str]
    most: int
    seed: int
    round_trip: bool
    is_over: Callable[[], bool]
    notes: list[str] = field(default_factory=list)

    def write(
        self,
        documents: Sequence[Document],
        checker: Checker,
        journal: Journal,
        progress: Progress,
        at_once: int,
    ) -> Made:
        """Ask about the passages in a seeded order until enough pairs are kept.

        Raises:
            UserError: As the writer and its journal raise.
        """
        made = Made([], [], 0)
        requests = [(kind, passage) for passage in self._ordered(documents) for kind in self.kinds]
        progress.start("Writing pairs", total=self.most, unit="pairs")
        stale = 0
        for start in range(0, len(requests), at_once):
            wave = requests[start : start + at_once]
            kept = len(made.kept)
            if not self._write_wave(wave, checker, journal, made):
                self.notes.append("The budget ended before all pairs were written; go on with --resume.")
                break
            progress.advance(len(made.kept) - kept, f"{start + len(wave):,} requests")
            stale = 0 if len(made.kept) > kept else stale + len(wave)
            if len(made.kept) >= self.most:
                break
            if stale >= STALE_REQUESTS:
                self.notes.append(f"The writer was stopped: its last {stale} answers gave no pair to keep.")
                break
        else:
            self.notes.append("Every passage was asked about; more pairs need more documents.")
        progress.finish(f"{len(made.kept):,} kept, {len(made.dropped):,} dropped")
        return Made(made.kept[: self.most], made.dropped, max(len(made.kept) - self.most, 0))

    def _ordered(self, documents: Sequence[Document]) -> list[Passage]:
        found = [passage for document in documents for passage in passages(document)]
        return sorted(found, key=lambda passage: _draw(self.seed, passage))

    def _write_wave(
        self, wave: Sequence[tuple[str, Passage]], checker: Checker, journal: Journal, made: Made
    ) -> bool:
        """Write and check the pairs of some requests; return whether all were answered within the budget."""
        answers = journal.ask([self.prompts.ask(*request) for request in wave], MAX_TOKENS)
        written: list[Pair] = []
        for (kind, passage), answer in zip(wave, answers, strict=True):
            if answer is None:
                continue
            found = self.prompts.pairs(kind, answer, passage, journal.writer_name)
            if not found:
                made.dropped.append((Pair("", answer, kind, journal.writer_name, passage), "malformed"))
            written += found
        passed: list[Pair] = []
        for pair in written:
            if fault := checker.reason(pair):
                made.dropped.append((pair, fault))
            else:
                passed.append(pair)
        reasons = self._round_trip(passed, journal)
        for pair, reason in zip(passed, reasons, strict=True):
            if reason:
                made.dropped.append((pair, reason))
            elif reason is not None:
                made.kept.append(pair)
        return None not in answers and None not in reasons

    def _round_trip(self, pairs: Sequence[Pair], journal: Journal) -> list[str | None]:
        """Return the reason to drop each pair, empty if it is kept, None if the budget ended before."""
        if not self.round_trip:
            return [""] * len(pairs)
        reasons: list[str | None] = ["" for _ in pairs]
        for name, kinds in (("answer", ("qa", "extraction")), ("guess", ("qa",))):
            asked = [at for at, pair in enumerate(pairs) if pair.kind in kinds and reasons[at] == ""]
            texts = [self.prompts.ask_back(name, pairs[at]) for at in asked]
            for at, answer in zip(asked, journal.ask(texts, MAX_ANSWER_TOKENS), strict=True):
                reasons[at] = None if answer is None else _disagreement(name, answer, pairs[at])
        return reasons


def _disagreement(name: str, answer: str, pair: Pair) -> str:
    agreement = token_f1(answer, pair.completion)
    if name == "answer":
        return "" if agreement >= ALIKE else "unanswerable"
    return "guessable" if agreement >= GUESSED else ""


def _draw(seed: int, passage: Passage) -> bytes:
    return hashlib.sha256(f"{seed}\n{passage.document}\n{passage.start}".encode(errors="replace")).digest()
