"""Configurations; sessions that were revived; citations of web pages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "configurations",
        sa.Column("stack_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column(
            "values",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "stack_id"], ["stacks.tenant_id", "stacks.id"], ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.UniqueConstraint("tenant_id", "stack_id"),
    )
    op.create_index("ix_configurations_tenant_id", "configurations", ["tenant_id"])
    op.create_index(
        "one_configuration_of_the_tenant",
        "configurations",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("stack_id IS NULL"),
        postgresql_where=sa.text("stack_id IS NULL"),
    )
    op.add_column("chat_sessions", sa.Column("revived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("citations", sa.Column("web_url", sa.String(length=2000), nullable=True))
    with op.batch_alter_table("citations") as citations:
        citations.alter_column("document_id", existing_type=sa.Uuid(as_uuid=False), nullable=True)
