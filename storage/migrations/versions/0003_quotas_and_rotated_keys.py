"""Quotas of tenants, rotation and rate limits of API keys, and tokens that are reserved for replies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("max_tokens_per_day", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("max_storage_bytes", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("max_documents", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("previous_hash", sa.String(length=64), nullable=True))
    op.add_column("api_keys", sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("rate_limit_per_minute", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_api_keys_previous_hash"), "api_keys", ["previous_hash"])
    op.create_table(
        "token_days",
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "day"),
    )
    op.create_index(op.f("ix_token_days_tenant_id"), "token_days", ["tenant_id"])
    op.create_table(
        "token_reservations",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_token_reservations_tenant_id"), "token_reservations", ["tenant_id"])
