"""The `bittern` command."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `bittern` command."""
    from bittern.cli.app import run

    run()
