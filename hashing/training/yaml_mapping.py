"""One mapping of plain values from YAML that nobody vouches for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

from bittern.errors import InvalidInputError

_OF_TAGS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What the safe loader fails with where a tag (!!int, !!map) and its value do not match."""


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without references, which can grow beyond measure, and without repeated keys,
    of which YAML would silently take the last.
    """

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(key for key, times in keys.items() if times > 1)
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} is given more than once")
        return super().construct_mapping(node, deep)


def load_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML (or JSON) text holds; empty for an empty text.

    Args:
        text: what to parse; the caller limits its length.
        source: what to call it in errors.

    Raises:
        InvalidInputError: not YAML, or not a mapping with text for keys.
    """
    try:
        # A subclass of the safe loader: plain values only.
        loaded = yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, *_OF_TAGS) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"{source} cannot be read as YAML or JSON: {reason}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise InvalidInputError(f"{source} must be a mapping of setting: value")
    return loaded
