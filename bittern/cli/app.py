"""The command line: its commands, how errors end it, and with which exit status.

Exit status: 0 done, 1 failed, 2 misused (arguments, queries and files that cannot be used).
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bittern import __version__
from bittern.cli import history, indexing, jobs, listing, searching, training
from bittern.cli.demo import demo
from bittern.cli.evaluating import evaluate
from bittern.cli.options import flag, grouped
from bittern.cli.output import FAILED, MISUSED, EscapingFormatter, print_error
from bittern.cli.serving import serve
from bittern.cli.verify import verify
from bittern.errors import BitternError, InvalidInputError, LayoutError

RENAMED = {
    "repair": "verify --repair",
    "optimize": "serve --recall",
    "search --within": "--max-distance",
    "search --save": "--output",
    "search --relevant": "--relevance",
    "--out": "--output",
    "--column": "--rename",
    "--commit-items": "the environment variable BITTERN_COMMIT_ITEMS",
    "--commit-seconds": "the environment variable BITTERN_COMMIT_SECONDS",
    "export --to": "--output",
    "--keep-embeddings": "--store-embeddings",
}
"""Commands and options of earlier releases, and what they are called now. An option's key names its
command unless the option was renamed in every command."""

_WORDS = {
    "Got unexpected extra argument": "Put words between quotes: unexpected argument",
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number",
    "Input should be a valid number, unable to parse string as a number": "not a number",
}
"""Typer's words about values, and ours."""


class Commands(TyperGroup):
    """The commands; usage errors give the new name of an old one, and use plain words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, as click does."""
        if args[0] not in self.commands and args[0] in RENAMED:
            ctx.fail(f"`{ctx.info_name} {args[0]}` is now `{ctx.info_name} {RENAMED[args[0]]}`")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, as click does."""
        try:
            return super().invoke(ctx)
        except Exception as error:  # Typer keeps its click to itself, so by what the error says
            old = getattr(error, "option_name", "")
            command = getattr(getattr(error, "ctx", None), "info_name", "")
            if new := RENAMED.get(f"{command} {old}", RENAMED.get(old)):
                vars(error).update(message=f"{old} is now {new}", possibilities=None)
            for theirs, ours in _WORDS.items():
                if theirs in getattr(error, "message", ""):
                    vars(error).update(message=vars(error)["message"].replace(theirs, ours))
            raise


app = typer.Typer(
    name="bittern",
    cls=Commands,
    help="Find wildlife photographs and sound recordings by words, by sound or by picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Find wildlife": {"demo": demo, "index": indexing.index, "search": searching.search},
    "Look after archives": {
        "stats": listing.stats,
        "export": searching.export,
        "verify": verify,
        "snapshots": history.snapshots,
        "restore": history.restore,
        "backup": history.backup,
    },
    "Serve archives to others": {"serve": serve, "jobs": jobs.jobs},
    "Choose, train and measure models": {
        "models": listing.models,
        "reencode": indexing.reencode,
        "train": training.train,
        "eval": evaluate,
        "encode": indexing.encode,
    },
}
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(grouped(_command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bittern {__version__}")
        raise typer.Exit


@app.callback()
def _bittern(
    version: Annotated[
        bool, flag("--version", "Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Find wildlife photographs and sound recordings by words, by sound or by picture."""


def run() -> None:
    """Run the command that the arguments name and exit.

    Typer itself ends usage errors with 2, Ctrl-C with 130 or 1, and a closed pipe with 1.
    """
    _quiet_libraries()
    try:
        app()
    except BitternError as error:
        print_error(error.message, several=isinstance(error, LayoutError))
        sys.exit(MISUSED if isinstance(error, InvalidInputError) else FAILED)
    except OSError as error:  # a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        remedy = (
            "; free some, and give the same command again" if error.errno == errno.ENOSPC else ""
        )
        print_error(f"{where}{error.strerror or error}{remedy}")
        sys.exit(FAILED)


def _quiet_libraries() -> None:
    """Keep libraries' notices off the screen; warnings of our own still show."""
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
