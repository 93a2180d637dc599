"""Why trials are what they are, what users ask for, what earlier studies know, and trials that come from other trials."""

import sqlalchemy as sa
from alembic import op

from service.store.tables import Json, Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("warm_start", Json(), nullable=True))
    op.add_column("trials", sa.Column("parent", sa.Integer(), nullable=True))
    op.add_column("trials", sa.Column("parent_report", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("repeats", sa.Integer(), nullable=True))
    op.add_column("trials", sa.Column("seed", sa.Integer(), nullable=True))
    op.create_table(
        "decisions",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("document", Json(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "trial"], ["trials.study_id", "trials.number"], name=op.f("fk_decisions_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "trial", "number", name=op.f("pk_decisions")),
    )
    op.create_table(
        "requests",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("parameters", Json(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_requests_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "number", name=op.f("pk_requests")),
    )
    op.create_table(
        "prior_trials",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", Json(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_prior_trials_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "number", name=op.f("pk_prior_trials")),
    )
