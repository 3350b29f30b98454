"""What a delivered model was trained on, kept beside it so that nobody scores it on its own training rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tunecast.records import DatasetFacts

FILE = "training.json"


@dataclass(frozen=True)
class Origin:
    """The data behind a model.

    Args:
        seed: The session's, by which the dataset was split.
        dataset: The dataset's name.
        dataset_fingerprint: Hash over all its examples, by split.
    """

    seed: int
    dataset: str
    dataset_fingerprint: str

    def write(self, folder: Path) -> None:
        """Put it beside a model."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What lies beside a model; None where there is nothing, or another program's file of that name."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls(int(content["seed"]), str(content["dataset"]), str(content["dataset_fingerprint"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def warnings(self, dataset: DatasetFacts, seed: int) -> list[str]:
        """Why scores on a dataset may be those of rows that the model was trained on, one sentence each.

        Args:
            dataset: The dataset on which the model is scored.
            seed: By which it was split.
        """
        if seed != self.seed:  # the fingerprint holds the splits, and could not tell other data from these
            return [
                f"--seed {seed} splits the data in another way than the model's training did "
                f"(--seed {self.seed}): rows that are scored may have been trained on."
            ]
        if dataset.fingerprint != self.dataset_fingerprint:
            return [
                f"{dataset.name} is not the dataset that the model was trained on ({self.dataset}), or has "
                "changed since: rows that are in both may have been trained on."
            ]
        return []
