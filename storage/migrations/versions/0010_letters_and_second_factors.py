"""Letters, second factors, and addresses that many may invite."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SIGNS_IN = sa.text("password_hash IS NOT NULL")


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        naming = {"uq": "uq_%(table_name)s_%(column_0_name)s"}
        with op.batch_alter_table("users", naming_convention=naming) as users:
            users.drop_constraint("uq_users_email", type_="unique")
    else:
        op.drop_constraint("users_email_key", "users", type_="unique")
    with op.batch_alter_table("users") as users:
        users.create_unique_constraint("users_tenant_id_email_key", ["tenant_id", "email"])
    op.create_index(op.f("ix_users_email"), "users", ["email"], unique=False)
    op.create_index(
        "users_who_sign_in",
        "users",
        ["email"],
        unique=True,
        sqlite_where=SIGNS_IN,
        postgresql_where=SIGNS_IN,
    )
    op.create_table(
        "letters",
        sa.Column("user_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index(op.f("ix_letters_tenant_id"), "letters", ["tenant_id"], unique=False)
    op.create_index(op.f("ix_letters_user_id"), "letters", ["user_id"], unique=False)
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column(
            "recovery_hashes",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("enabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.UniqueConstraint("user_id"),
    )
    op.create_index(op.f("ix_second_factors_tenant_id"), "second_factors", ["tenant_id"], unique=False)


def downgrade() -> None:
    op.drop_table("second_factors")
    op.drop_table("letters")
    op.drop_index("users_who_sign_in", table_name="users")
    op.drop_index(op.f("ix_users_email"), table_name="users")
    with op.batch_alter_table("users") as users:
        users.drop_constraint("users_tenant_id_email_key", type_="unique")
        users.create_unique_constraint("users_email_key", ["email"])
