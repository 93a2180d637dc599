"""A trial that ran out of memory is infeasible, which was called failed before."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One version further, so that the tracker hears of it.
    op.execute(
        "UPDATE trials SET state = 'infeasible', version = version + 1 WHERE state = 'failed' AND reason = 'out_of_memory'"
    )
