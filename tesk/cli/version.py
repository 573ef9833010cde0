"""`tesk version`, in a module of its own, which imports nothing that it does not need."""

import platform

import click

import tesk


@click.command("version")
def version_command() -> None:
    """Print the version of tesk and of the Python that runs it."""
    click.echo(f"tesk {tesk.__version__} (Python {platform.python_version()})")
