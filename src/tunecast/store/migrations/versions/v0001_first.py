"""The first schema: facts under the hash of their content, runs, points, sessions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _columns(
    kind: type[sa.types.TypeEngine[Any]], names: str, *, nullable: bool = False
) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=nullable) for name in names.split()]


def upgrade() -> None:
    """Create every table of the store."""
    for name, columns in {
        "datasets": _columns(sa.Text, "name"),
        "models": _columns(sa.Text, "name") + _columns(sa.BigInteger, "parameters"),
        "machines": _columns(sa.Text, "device"),
    }.items():
        op.create_table(
            name, sa.Column("hash", sa.Text, primary_key=True), *columns, *_columns(sa.JSON, "facts")
        )
    _create_runs()
    _create_points()
    op.create_table("sessions", sa.Column("id", sa.Text, primary_key=True), *_columns(sa.JSON, "record"))


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        *_columns(sa.Text, "session dataset model metric method"),
        *_columns(sa.JSON, "hyperparameters"),
        *_columns(sa.BigInteger, "seed full_length_tokens total_steps unique_examples max_length"),
        *_columns(sa.Text, "validation_hash"),
        sa.Column("dataset_hash", sa.Text, sa.ForeignKey("datasets.hash"), nullable=False),
        sa.Column("model_hash", sa.Text, sa.ForeignKey("models.hash"), nullable=False),
        sa.Column("machine_hash", sa.Text, sa.ForeignKey("machines.hash"), nullable=False),
        *_columns(sa.JSON, "versions"),
        *_columns(sa.Text, "dtype"),
        *_columns(sa.BigInteger, "trainable_parameters"),
        *_columns(sa.Boolean, "exclusive"),
        *_columns(sa.Double, "created_at"),
        *_columns(sa.Text, "outcome"),
        *_columns(sa.Text, "error_kind error_text", nullable=True),
        *_columns(sa.JSON, "validation test", nullable=True),
        *_columns(sa.JSON, "extra"),
    )
    op.create_index("runs_by_dataset", "runs", ["dataset", "model"])
    op.create_index("runs_by_session", "runs", ["session"])
    op.create_index("runs_by_age", "runs", ["created_at", "id"])


def _create_points() -> None:
    op.create_table(
        "points",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        *_columns(sa.BigInteger, "tokens_seen label_tokens_seen"),
        *_columns(sa.Double, "share learning_rate"),
        *_columns(sa.Double, "train_loss gradient_norm", nullable=True),
        *_columns(sa.Double, "validation_loss validation_nats_per_completion validation_bits_per_byte"),
        *_columns(sa.BigInteger, "validation_examples validation_label_tokens"),
        *_columns(sa.Double, "validation_loss_low validation_loss_high validation_metric", nullable=True),
        *_columns(sa.Text, "validation_metric_name"),
        *_columns(sa.Double, "validation_metric_low validation_metric_high", nullable=True),
        *_columns(sa.BigInteger, "validation_metric_examples"),
        *_columns(sa.Double, "training_wall training_cpu"),
        *_columns(sa.Double, "training_device", nullable=True),
        *_columns(sa.Double, "evaluation_wall evaluation_cpu"),
        *_columns(sa.Double, "evaluation_device", nullable=True),
        *_columns(sa.BigInteger, "peak_bytes", nullable=True),
        *_columns(sa.BigInteger, "micro_batch_size"),
        *_columns(sa.Double, "load_average", nullable=True),
        *_columns(sa.BigInteger, "workers"),
        *_columns(sa.Double, "elapsed_seconds"),
        *_columns(sa.Text, "checkpoint_hash"),
    )
