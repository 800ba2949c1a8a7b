"""Who makes a persona's questions stand alone."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "personas",
        sa.Column("question_rewriting", sa.String(length=20), server_default="rule", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("personas", "question_rewriting")
