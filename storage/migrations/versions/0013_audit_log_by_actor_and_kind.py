"""The audit log of a large tenant by who acted, by what was done and by what it was done to."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, column in (
        ("audit_entries_of_actor", "actor_id"),
        ("audit_entries_of_kind", "actor_kind"),
        ("audit_entries_of_action", "action"),
        ("audit_entries_of_type", "object_type"),
    ):
        op.create_index(name, "audit_entries", ["tenant_id", column, "created_at", "id"])


def downgrade() -> None:
    for name in ("of_actor", "of_kind", "of_action", "of_type"):
        op.drop_index(f"audit_entries_{name}", table_name="audit_entries")
