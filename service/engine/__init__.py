"""One archive with its models: searches it and adds to it."""

from bittern.service.engine.engine import Engine

__all__ = ["Engine"]
