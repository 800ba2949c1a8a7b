"""Commands of the host: what arrives on the command line."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select

from models.access import ApiKey, effective_scopes
from models.base import new_id, now
from models.errors import Conflict
from models.personas import Persona, PersonaVersion
from models.tenancy import (
    OPERATOR,
    PLATFORM,
    Product,
    Region,
    RegionAssignment,
    Role,
    Seat,
    Stack,
    Subscription,
    Tenant,
    User,
)
from storage import demo, migrations, secrets
from storage.database import Session, platform
from storage.settings import settings

CAPABILITIES = ("chat_ai",)
SEATS = 25
PERIOD = timedelta(days=366)


def prepare() -> None:
    """Bring the database up to date."""
    migrations.upgrade()


def _product(db: Session) -> Product:
    found = db.scalar(select(Product).where(Product.slug == "booga-chat"))
    return found or db.put(Product(name="Booga Chat", slug="booga-chat", capabilities=list(CAPABILITIES)))


def _region(db: Session) -> Region:
    found = db.scalar(select(Region).where(Region.slug == "default"))
    return found or db.put(Region(name="Default region", slug="default"))


def make_tenant(name: str, email: str, password: str, without: tuple[str, ...] = ()) -> dict[str, str]:
    """A tenant that can chat at once: subscription, stack, owner with seat and region, default persona, API
    key.
    """
    hashed = secrets.hash_password(password)
    with platform() as db:
        taken = User.email == email.strip().lower(), User.password_hash.is_not(None)
        if db.scalar(select(User.id).where(*taken)):
            raise Conflict(f"The address {email} is taken.")
        product, region = _product(db), _region(db)
        tenant = db.put(Tenant(name=name))
        of = {"tenant_id": tenant.id}
        at = now()
        subscription = db.put(
            Subscription(
                **of,
                product_id=product.id,
                seats=SEATS,
                capabilities=[capability for capability in CAPABILITIES if capability not in without],
                period_start=at,
                period_end=at + PERIOD,
            )
        )
        stack = db.put(
            Stack(**of, name=f"{product.name}, {region.name}", product_id=product.id, region_id=region.id)
        )
        owner = db.put(User(**of, email=email.strip().lower(), role=Role.OWNER, password_hash=hashed))
        db.put(Seat(**of, subscription_id=subscription.id, user_id=owner.id))
        db.put(RegionAssignment(**of, user_id=owner.id, region_id=region.id))
        persona = db.put(
            Persona(**of, id=new_id(), stack_id=stack.id, name="Assistant", slug="assistant", is_default=True)
        )
        db.put(
            PersonaVersion(
                **of, persona_id=persona.id, version=1, values=persona.snapshot([], []), author_id=owner.id
            )
        )
        key, secret = ApiKey.issue(
            user_id=owner.id, role=owner.role, name="bootstrap", scopes=effective_scopes(owner.role, None)
        )
        key.tenant_id = tenant.id
        db.put(key)
    return {"tenant_id": tenant.id, "user_id": owner.id, "api_key": secret, "stack_id": stack.id}


def make_operator_key() -> str:
    """A new API key of the installation's operators."""
    with platform() as db:
        if db.get(Tenant, PLATFORM) is None:
            db.put(Tenant(id=PLATFORM, name="Operators"))
        found = db.scalar(select(User).where(User.tenant_id == PLATFORM, User.role == OPERATOR))
        operator = found or db.put(
            User(tenant_id=PLATFORM, email="operators@booga.invalid", name="Operators", role=OPERATOR)
        )
        scopes = effective_scopes(OPERATOR, None)
        key, secret = ApiKey.issue(user_id=operator.id, role=OPERATOR, name="operator-key", scopes=scopes)
        key.tenant_id = PLATFORM
        db.put(key)
    return secret


def announce_demo() -> None:
    """Make the demo tenant once, and say how to begin."""
    from storage import identity  # it brings tokens along, which other commands do without

    note = demo.note()
    if "index_id" not in note or identity.caller_of(note["api_key"]) is None:
        from handlers import demo as making  # it brings the reading of documents along

        click.echo("Making the demo, this once: a company, its annual report and a workbook ...")
        making.make()
    click.echo(WELCOME.format(url=settings().public_url, question=QUESTION, **demo.note()))


QUESTION = "How much did Tarnwick spend on property, plant and equipment in 2025?"
WELCOME = """
Booga serves at {url} in a moment; Ctrl+C ends it.

  try it        {url}/docs
  read it       {url}/redoc
  contract      {url}/openapi.yaml
  API           {url}/api/v1/chat
  OpenAI door   {url}/openai/v1        its model: {model}
  sign-in       {email}  {password}

For the examples in README.md:

  export BOOGA={url} BOOGA_KEY={api_key}

The first question, to be pasted into another terminal:

  curl -s {url}/openai/v1/chat/completions -H 'Authorization: Bearer {api_key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{question}"}}]}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])'"""


def register(main: click.Group, one_clear_line: Any) -> None:
    """Add these commands to ``booga``."""

    @main.command()
    def migrate() -> None:
        """Bring the database's schema up to date."""
        with one_clear_line():
            settings()
            click.echo(f"at revision {migrations.upgrade()}")

    @main.command()
    @click.option("--tenant", required=True, help="The company's name.")
    @click.option("--email", required=True, help="Its owner's address.")
    @click.option("--password", required=True, help="The owner's password, 12 characters or more.")
    @click.option(
        "--without-capability",
        multiple=True,
        metavar="NAME",
        help="Leave a capability out of the subscription.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def bootstrap(
        tenant: str, email: str, password: str, without_capability: tuple[str, ...], as_json: bool
    ) -> None:
        """Make a tenant with an owner, a subscription, a stack, a default persona and an API key."""
        if len(password) < 12:
            raise click.BadParameter("use 12 characters or more", param_hint="--password")
        with one_clear_line():
            settings()
            prepare()
            made = make_tenant(tenant, email, password, without_capability)
        click.echo(
            json.dumps(made) if as_json else "\n".join(f"{name}: {value}" for name, value in made.items())
        )

    @main.command("operator-key")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def operator_key(as_json: bool) -> None:
        """Make an API key for those who run the installation, and belong to no tenant."""
        with one_clear_line():
            settings()
            prepare()
            key = make_operator_key()
        click.echo(json.dumps({"api_key": key}) if as_json else key)

    @main.command()
    def worker() -> None:
        """Run jobs alone, without serving, until told to stop."""
        from handlers import lifecycle  # it brings the whole of chat along

        with one_clear_line():
            settings()
            prepare()
            lifecycle.configure_logs()
            lifecycle.work()

    @main.command()
    @click.option("--everything", is_flag=True, help="Read all files anew, too.")
    def reindex(everything: bool) -> None:
        """Promise new vectors where the embedding model changed; the server or a worker makes them."""
        from storage import embeddings, library, vectors  # what other commands do without

        with one_clear_line():
            settings()
            prepare()
            maker = vectors.embedder()
            if isinstance(maker, embeddings.Unavailable) and not everything:
                raise Conflict(f"There is no embedding model: {maker.reason}")
            with platform() as db:
                count = library.reindex(db, getattr(maker, "name", ""), everything=everything)
        click.echo(f"{count} documents will be indexed anew by the server or a worker")

    @main.command()
    def doctor() -> None:
        """Look at every part that the server stands on; status 1 when one is down."""
        from storage import health  # it brings the vectors along, which other commands do without

        with one_clear_line():
            settings()
        found = asyncio.run(health.parts())
        for part in found:
            click.echo(f"{part.status.value:<9} {part.name:<13} {part.detail}")
        if health.down(found):
            raise SystemExit(1)

    @main.command()
    @click.option("--repair", is_flag=True, help="Mend both ways; the server makes what is missing.")
    def verify(repair: bool) -> None:
        """Compare SQL, files, keywords and vectors; status 1 when they differ.

        With embedded Chroma the server has to be stopped first: it alone may open the vectors.
        """
        from storage import upkeep, vectors  # they bring Chroma along, which other commands do without

        with one_clear_line():
            settings()
            try:
                with platform(writes=False) as db:
                    found = list(upkeep.differences(db))
                for difference in found:
                    click.echo(str(difference))
                if repair and found:
                    upkeep.mend(found)
            finally:
                vectors.close()
        if not found:
            click.echo("SQL, files, keywords and vectors agree.")
            return
        click.echo(
            f"{len(found)} differences" + (", mended; verify once more when jobs are done" if repair else "")
        )
        raise SystemExit(1)

    @main.command()
    def rotate_keys() -> None:
        """Sign access tokens with a new key soon; tokens of the old one stay good until they expire."""
        from storage import tokens  # other commands do without

        with one_clear_line():
            settings()
            prepare()
            begins = tokens.rotate()
        click.echo(f"The new key is shown from now on, and signs from {begins:%H:%M:%S} UTC on.")

    @main.command()
    def rotate_secrets() -> None:
        """Encrypt all that is sealed with the newest secret of BOOGA_SECRET_KEY.

        Put the new secret before the old one, a comma between, and restart the server. Then run this, and
        take the old one out.
        """
        from cryptography.fernet import InvalidToken  # other commands do without

        from storage import upkeep  # it brings the vectors along

        with one_clear_line():
            settings()
            prepare()
            try:
                count = upkeep.reseal()
            except InvalidToken:
                raise Conflict(
                    "Something is sealed with a secret that BOOGA_SECRET_KEY does not hold."
                ) from None
        click.echo(f"{count} values are sealed with the newest secret.")

    archive = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))

    @main.command()
    @archive
    def backup(file: Path) -> None:
        """Copy the database's rows, the originals and the generated secret into FILE, a tar.

        The server may run meanwhile; the rows are those of one moment. Vectors are not copied: restore has
        them made anew. FILE is readable by its owner alone, and opens what is sealed where the secret is in
        it: keep it as safe as the server. A BOOGA_SECRET_KEY is not in it: keep that apart.
        """
        from storage import backups  # it brings the vectors along

        with one_clear_line():
            settings()
            done = backups.backup(file)
        click.echo(f"{done.rows} rows and {done.files} originals are in {file}; vectors are not.")
        if done.missing:
            click.echo(f"{done.missing} originals were not there (booga verify tells which).", err=True)

    @main.command()
    @archive
    def restore(file: Path) -> None:
        """Fill an empty installation from FILE, which booga backup made, on SQLite or PostgreSQL.

        Refused where the data folder or the database holds anything, FILE is damaged, or another version's.
        The server or a worker then makes all vectors anew; until then words find the documents.
        """
        from storage import backups  # it brings the vectors along

        with one_clear_line():
            settings()
            done = backups.restore(file)
        click.echo(f"{done.rows} rows and {done.files} originals are restored.")
        click.echo(
            f"{done.queued} documents get new vectors from the server or a worker; words find them now."
        )
