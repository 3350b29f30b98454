"""What exported training scripts have in common: Tunecast's batches, the command line, data and curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunecast.training.plan import POOLED_BATCHES

PARTS: Mapping[str, str] = {
    "batches": '''class Batches(Sampler):
    """The batches of every epoch: examples of similar length together, the batches in random order."""

    def __init__(self, lengths, batch_size, seed):
        self.lengths, self.batch_size, self.seed = np.array(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self):
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.lengths))
        size = self.batch_size
        batches = []
        for start in range(0, len(order), POOLED * size):
            pool = order[start : start + POOLED * size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[i : i + size].tolist() for i in range(0, len(pool), size)]
        return iter([batches[i] for i in draw.permutation(len(batches))])'''.replace(
        "POOLED", str(POOLED_BATCHES)
    ),
    "batching": """    def get_train_dataloader(self):
        if self.args.world_size > 1:  # several processes: TRL's own order
            return super().get_train_dataloader()
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batches = Batches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        data = DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(data)""",
    "arguments": """    parser = HfArgumentParser(SFTConfig)
    parser.set_defaults(output_dir=str(HERE / "result"), bf16=bf16, use_cpu=not cuda, **HYPERPARAMETERS)
    (args,) = parser.parse_args_into_dataclasses()""",
    "data": """    data = load_dataset(
        "json",
        data_files={"train": str(HERE / "train.jsonl"), "validation": str(HERE / "validation.jsonl")},
    )""",
    "training": """    trainer.train()
    log, last = trainer.state.log_history, trainer.state.global_step
    measured = any("eval_loss" in entry and entry["step"] == last for entry in log)
    if args.eval_strategy != "no" and not measured:
        trainer.evaluate()
    print(log[-1])""",
    "ending": """    # `tunecast runs import FOLDER` reads the curve, and the arguments in README.md.
    trainer.save_state()
    summary = TrainingSummary.from_trainer(trainer, finetuned_from=MODEL, dataset=DATASET)
    (Path(args.output_dir) / "README.md").write_text(summary.to_model_card(), encoding="utf-8")


if __name__ == "__main__":
    main()""",
}
"""Code by its place in a script, which defines ``HERE``, ``MODEL``, ``DATASET`` and ``HYPERPARAMETERS``."""


def as_literal(values: Mapping[str, Any]) -> str:
    """Return a dictionary as Python code, one entry a line."""
    lines = [f"    {name!r}: {value!r},\n" for name, value in values.items()]
    return "{\n" + "".join(lines) + "}"
