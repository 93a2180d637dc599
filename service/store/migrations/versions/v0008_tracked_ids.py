"""Which study a run or an experiment of the tracker stands for, looked up by its id."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_mirror_runs_run_id"), "mirror_runs", ["run_id"])
    op.create_index(op.f("ix_mirror_experiments_experiment_id"), "mirror_experiments", ["experiment_id"])
