"""Where a message stands on its branch, and each conversation's own counts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MESSAGES = sa.table(
    "messages",
    sa.column("id", sa.Uuid(as_uuid=False)),
    sa.column("session_id", sa.Uuid(as_uuid=False)),
    sa.column("parent_id", sa.Uuid(as_uuid=False)),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("depth", sa.Integer),
    sa.column("run_id", sa.Uuid(as_uuid=False)),
)


def upgrade() -> None:
    op.add_column("chat_sessions", sa.Column("counts", JSON, nullable=True))
    op.add_column("messages", sa.Column("depth", sa.Integer(), server_default="0", nullable=False))
    op.add_column("messages", sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=True))
    _place_messages()
    op.create_index("sessions_of_tenant", "chat_sessions", ["tenant_id", "created_at"])
    op.create_index("messages_of_tenant", "messages", ["tenant_id", "created_at"])
    op.create_index("messages_of_run", "messages", ["run_id", "depth"])


def _place_messages() -> None:
    """Give what is there its place. Parents come first, since they were made first."""
    connection = op.get_bind()
    columns = (MESSAGES.c.id, MESSAGES.c.session_id, MESSAGES.c.parent_id)
    ordered = sa.select(*columns).order_by(MESSAGES.c.created_at, MESSAGES.c.id)
    places: dict[str, tuple[int, str]] = {}
    followed: set[str] = set()
    for id, session_id, parent_id in connection.execute(ordered):
        if parent_id not in places:
            places[id] = (1, session_id)
            continue
        depth, run_id = places[parent_id]
        places[id] = (depth + 1, id if parent_id in followed else run_id)
        followed.add(parent_id)
    if places:
        placed = sa.update(MESSAGES).where(MESSAGES.c.id == sa.bindparam("b_id"))
        connection.execute(
            placed.values(depth=sa.bindparam("b_depth"), run_id=sa.bindparam("b_run")),
            [{"b_id": id, "b_depth": depth, "b_run": run_id} for id, (depth, run_id) in places.items()],
        )


def downgrade() -> None:
    op.drop_index("messages_of_run", "messages")
    op.drop_index("messages_of_tenant", "messages")
    op.drop_index("sessions_of_tenant", "chat_sessions")
    op.drop_column("messages", "run_id")
    op.drop_column("messages", "depth")
    op.drop_column("chat_sessions", "counts")
