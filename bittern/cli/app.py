"""The command line: its commands, how errors end it, and with which exit status.

Exit status: 0 done, 1 failed, 2 misused (arguments, queries and files that cannot be used).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import click
import typer

from bittern import __version__
from bittern.cli import archives, demo, encoding, indexing, searching, serving
from bittern.cli.screen import err
from bittern.errors import BitternError, InvalidInputError

FAILED = 1
MISUSED = 2

app = typer.Typer(
    name="bittern",
    help="Find wildlife photographs and sound recordings by words, by sound or by picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

demo.attach(app)
archives.attach_models(app)
indexing.attach(app)
searching.attach(app)
serving.attach(app)
encoding.attach(app)
archives.attach(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bittern {__version__}")
        raise typer.Exit


@app.callback()
def _bittern(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Find wildlife photographs and sound recordings by words, by sound or by picture."""


def run() -> None:
    """Run the command that the arguments name and exit."""
    _quiet_libraries()
    try:
        status = app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        sys.exit(MISUSED)
    except click.ClickException as error:
        error.show()
        sys.exit(MISUSED)
    except (click.Abort, KeyboardInterrupt):
        err.print("stopped; what was committed before is kept")
        sys.exit(130)
    except BitternError as error:
        err.print("[bold red]error:[/]", end=" ")
        err.print(error.message, markup=False, highlight=False)
        sys.exit(MISUSED if isinstance(error, InvalidInputError) else FAILED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    sys.exit(status if isinstance(status, int) else 0)


def _quiet_libraries() -> None:
    """Keep libraries' notices off the screen; warnings of our own still show."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
