"""The command line: ``booga``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from handlers import commands
from models.errors import DomainError
from storage.settings import SettingsError, settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option("0.1.0", prog_name="booga")
def main() -> None:
    """Booga Enterprise API: a self-hosted chat platform over financial documents."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
@click.option("--demo", is_flag=True, help="Make the demo tenant first, once, and print its API key.")
def serve(host: str, port: int, demo: bool) -> None:
    """Bring the database up to date and serve until told to stop."""
    anywhere = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    os.environ.setdefault("BOOGA_PUBLIC_URL", f"http://{'127.0.0.1' if host in anywhere else host}:{port}")
    with _one_clear_line():
        settings()
        commands.prepare()
        if demo:
            commands.announce_demo()
        root = Path(__file__).parent.parent
        program = Path(sys.executable).parent / "gunicorn"
        os.chdir(root)
        os.execv(  # noqa: S606 - our own server, no shell
            program,
            [
                str(program),
                "--config",
                str(root / "gunicorn.conf.py"),
                "--bind",
                f"{host}:{port}",
                "openapi.server:application()",
            ],
        )


@main.group()
def spec() -> None:
    """The OpenAPI document."""


@spec.command()
@click.option("--check", is_flag=True, help="Only tell whether the published file is current.")
def bundle(check: bool) -> None:
    """Join openapi/ into openapi/dist/openapi.yaml."""
    from openapi import bundle as bundler  # the other commands need no YAML

    with _one_clear_line(bundler.BundleError):
        if check:
            if not bundler.is_current():
                raise click.ClickException(
                    "openapi/dist/openapi.yaml is stale: run `booga spec bundle` and commit it"
                )
            click.echo("openapi/dist/openapi.yaml is current")
            return
        click.echo("written" if bundler.write() else "unchanged")


class _one_clear_line:  # noqa: N801 - reads as a statement
    """What the host did wrong is one line on stderr and status 1, not a traceback."""

    def __init__(self, *kinds: type[Exception]) -> None:
        self.kinds = (SettingsError, DomainError, *kinds)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, self.kinds):
            raise click.ClickException(str(fault))


commands.register(main, _one_clear_line)

if __name__ == "__main__":
    main()
