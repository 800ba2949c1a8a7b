"""Bots, what their visitors used, and whose conversations are visitors'."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    op.create_table(
        "bots",
        sa.Column("stack_id", ID, nullable=False),
        sa.Column("persona_id", ID, nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("slug", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=False),
        sa.Column("allowed_origins", JSON, nullable=False),
        sa.Column("public_key", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("icon_url", sa.String(length=2000), nullable=True),
        sa.Column("theme", JSON, nullable=False),
        sa.Column("greeting", sa.String(length=2000), nullable=False),
        sa.Column("suggested_questions", JSON, nullable=False),
        sa.Column("rate_limit_per_minute", sa.Integer(), nullable=False),
        sa.Column("daily_message_limit", sa.Integer(), nullable=True),
        sa.Column("daily_token_budget", sa.Integer(), nullable=True),
        sa.Column("retention_days", sa.Integer(), nullable=True),
        sa.Column("collect_feedback", sa.Boolean(), nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id", "stack_id"], ["stacks.tenant_id", "stacks.id"]),
        sa.ForeignKeyConstraint(["tenant_id", "persona_id"], ["personas.tenant_id", "personas.id"]),
        sa.ForeignKeyConstraint(
            ["tenant_id", "organization_id"], ["organizations.tenant_id", "organizations.id"]
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_key"),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.UniqueConstraint("tenant_id", "slug"),
    )
    for column in ("persona_id", "stack_id", "tenant_id"):
        op.create_index(f"ix_bots_{column}", "bots", [column])
    op.create_table(
        "bot_days",
        sa.Column("bot_id", ID, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id", "bot_id"], ["bots.tenant_id", "bots.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("bot_id", "day"),
    )
    op.create_index("ix_bot_days_tenant_id", "bot_days", ["tenant_id"])
    op.create_table(
        "bot_reservations",
        sa.Column("message_id", ID, nullable=False),
        sa.Column("bot_id", ID, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id", "bot_id"], ["bots.tenant_id", "bots.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message_id"),
    )
    for column in ("bot_id", "tenant_id"):
        op.create_index(f"ix_bot_reservations_{column}", "bot_reservations", [column])
    op.add_column("chat_sessions", sa.Column("visitor_id", ID, nullable=True))
    op.create_index("sessions_of_bot", "chat_sessions", ["bot_id", "created_at"])


def downgrade() -> None:
    op.drop_index("sessions_of_bot", "chat_sessions")
    with op.batch_alter_table("chat_sessions") as batch:
        batch.drop_column("visitor_id")
    for table in ("bot_reservations", "bot_days", "bots"):
        op.drop_table(table)
