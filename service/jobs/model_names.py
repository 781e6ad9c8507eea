"""Which models a call may name: by name only, never by a path on the server."""

from __future__ import annotations

from pathlib import Path

from bittern.errors import ModelNotFoundError, QueryError


def check_model_name(name: str, known: set[str]) -> None:
    """Check that a call names a model and not a path.

    Args:
        name: an encoder, a shipped model, a saved one in a place for those, or one of `known`;
            empty for whichever the archive has.
        known: the archive's own.

    Raises:
        QueryError: it is a path.
        ModelNotFoundError: there is no such model.
    """
    from bittern.encoders.catalogue import CATALOGUE
    from bittern.service.models.fitting import SHIPPED
    from bittern.service.models.saved import model_folder

    if (
        not name
        or name in known
        or name in CATALOGUE
        or name in {folder.name for folder in SHIPPED.iterdir()}
    ):
        return
    if Path(name).name != name or "\\" in name or name.startswith("."):
        raise QueryError("model is the name of a model, not a path", field="model")
    if model_folder(name) is None:
        choices = ", ".join(sorted({*known, *CATALOGUE}))
        raise ModelNotFoundError(
            f"this server has no model '{name[:100]}'; it has {choices}, and those in its own "
            "models folder",
            field="model",
        )
