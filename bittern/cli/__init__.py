"""The `bittern` command."""

from bittern.cli.app import run as main

__all__ = ["main"]
