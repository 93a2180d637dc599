"""What a project's deleted studies had used, and an audit log that the database itself lets nobody change."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SAID = "the audit log is only ever added to"


def upgrade() -> None:
    op.create_table(
        "past_usage",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("gpu_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_past_usage")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for event in ("update", "delete"):
            refuse = f"CREATE TRIGGER audit_no_{event} BEFORE {event.upper()} ON audit BEGIN SELECT RAISE(ABORT, '{_SAID}'); END"
            op.execute(refuse)
        return
    op.execute(
        "CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_SAID}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    events = "UPDATE OR DELETE OR TRUNCATE"
    op.execute(f"CREATE TRIGGER audit_is_kept BEFORE {events} ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()")
