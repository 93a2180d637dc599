"""Studies that pause, shares of the workers, trials that are tried again or stopped one by one, and forecasts."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from service.store.tables import Json, Moment, Words

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("is_urgent", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("studies", sa.Column("idle_seconds", sa.Float(), nullable=False, server_default="0"))
    op.add_column("studies", sa.Column("idle_since", Moment(), nullable=True))
    op.add_column("studies", sa.Column("resumed_at", Moment(), nullable=True))
    op.add_column("studies", sa.Column("amended_at", Moment(), nullable=True))
    op.add_column("studies", sa.Column("created_by", Words(), nullable=True))
    op.add_column("studies", sa.Column("trials_per_gpu", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("attempts", sa.Column("gpus", sa.Float(), nullable=False, server_default="0"))
    for column in ("peak_bytes", "gpu_bytes"):
        op.add_column("attempts", sa.Column(column, sa.BigInteger(), nullable=True))
    op.add_column("trials", sa.Column("errors", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("not_before", Moment(), nullable=True))
    op.add_column("trials", sa.Column("lost_seconds", sa.Float(), nullable=False, server_default="0"))
    op.create_table(
        "shares",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=True),
        sa.Column("lag", sa.Float(), nullable=False),
        sa.Column("waiting", Json(), nullable=True),
        sa.Column("trials_per_gpu", sa.Integer(), nullable=False, server_default="1"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_shares_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_shares")),
    )
    op.create_table(
        "footprints",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("detail", Words(), nullable=True),
        sa.Column("missing", Json(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_footprints_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_footprints")),
    )
    for column in ("at", "forgotten_at"):
        op.add_column("mirror_deletions", sa.Column(column, Moment(), nullable=True))
    for column in ("document", "forgotten"):
        op.add_column("mirror_deletions", sa.Column(column, Json(), nullable=True))
    of_study: tuple[tuple[str, list[sa.Column[Any]]], ...] = (
        ("trial_stops", [sa.Column("at", Moment(), nullable=False), sa.Column("asked_by", Words(), nullable=True)]),
        ("forecasts", [sa.Column("at", Moment(), nullable=False), sa.Column("document", Json(), nullable=False)]),
    )
    for name, columns in of_study:
        op.create_table(
            name,
            sa.Column("study_id", sa.Text(), nullable=False),
            sa.Column("number", sa.Integer(), nullable=False),
            *columns,
            sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f(f"fk_{name}_study_id"), ondelete="CASCADE"),
            sa.PrimaryKeyConstraint("study_id", "number", name=op.f(f"pk_{name}")),
        )
