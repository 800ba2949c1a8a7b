"""A tenant's latencies by hour: figures over all of its bots read the hours asked for, not every hour."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("latency_of_tenant", "latency_hours", ["tenant_id", "hour"])


def downgrade() -> None:
    op.drop_index("latency_of_tenant", table_name="latency_hours")
