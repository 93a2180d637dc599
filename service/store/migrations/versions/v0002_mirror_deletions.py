"""Remember which studies were deleted until the tracker has forgotten them too."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mirror_deletions",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_mirror_deletions")),
    )
