"""What the catalogue of encoders says to people: names, towers, weights, licences."""

from __future__ import annotations

from dataclasses import dataclass

from bittern.encoders.catalogue import CATALOGUE, WeightsStatus, find_weights


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """One encoder that can be named after ``--model``.

    Attributes:
        name: what users call it.
        modalities: its towers.
        dim: length of an embedding.
        licence: of the weights.
        ready: whether the weights are on this machine.
        where: where they are, or empty.
        message: where they were sought and how to bring them; empty if they are here.
        bring: the command that fetches them; empty for an embedded encoder.
    """

    name: str
    modalities: tuple[str, ...]
    dim: int
    licence: str
    ready: bool
    where: str
    message: str
    bring: str


def encoders() -> list[EncoderInfo]:
    """All encoders of the catalogue; loads none of them."""
    infos = []
    for name, entry in CATALOGUE.items():
        status = find_weights(name)
        revision = f" --revision {entry.revision}" if entry.pinned else ""
        bring = f"hf download {entry.hub_id}{revision} --local-dir DIR/{name}"
        infos.append(
            EncoderInfo(
                name=name,
                modalities=tuple(str(m) for m in entry.modalities),
                dim=entry.dim,
                licence=entry.licence,
                ready=status.ready,
                where=status.where,
                message=status.message,
                bring=bring if entry.hub_id else "",
            )
        )
    return infos


def encoder_names(encoder: str) -> tuple[str, ...]:
    """Names of the encoders that a model's card gives: one, or several joined by ``+``."""
    return tuple(dict.fromkeys(encoder.split("+")))


def weights_of(encoder: str) -> WeightsStatus:
    """Whether the weights of all encoders that a model's card names are here; reads none.

    Args:
        encoder: as on a card, see `encoder_names`.

    Returns:
        ready only if all are; else the message says what is missing, of each that is.
    """
    found = [find_weights(name) for name in encoder_names(encoder)]
    missing = [status.message for status in found if not status.ready]
    if missing:
        return WeightsStatus(False, "", "; ".join(missing))
    return WeightsStatus(True, ", ".join(dict.fromkeys(s.where for s in found)), "ready")


def licence_notice(encoder: str) -> str:
    """What a user must be told before using an encoder for the first time; mostly nothing."""
    if encoder != "field":
        return ""
    from bittern.encoders.field import licence_notice as notice

    return notice()
