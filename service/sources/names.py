"""Names of species that folders tell: ``Strigidae/Strix aluco/1.jpg``.

Only what is unmistakable is taken, because a wrong name does more harm than none: it is searched
for, exported, and published. A folder called ``Summer holidays``, ``Canon eos`` or ``New folder``
has the shape of a species' name: a capitalised word and one in lower case. So folders are judged
together with the folders beside them:

- all of them have the shape (``Strix aluco``, ``Strix_aluco``, a subspecies' third word, or
  ``Corvus sp.``), but for bins such as ``unknown`` or ``blank``, which get no name;
- none of them holds a word of `_NO_NAMES`, which people give to folders;
- and the folder above is named like a family (``Strigidae``, ``Rosaceae``), or at least a third of
  them are Latin by their second word: it repeats the first (``Bubo bubo``), ends as hardly a word
  of a living language does (``-us``, ``-ensis``, ``-ii``, ...), or is one of `_EPITHETS`. ``Costa
  rica`` beside ``Sierra nevada`` has the shape and nothing of that. ``Strix aluco`` alone has
  nothing of it either, and goes without a name: that is the price.

The long names of iNaturalist's data sets, ``00001_Animalia_Chordata_Aves_Strigiformes_Strigidae_
Strix_aluco``, begin with a number and a kingdom, and are recognised one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SPECIES = re.compile(r"([A-Z][a-z]{2,}(?:-[a-z]+)?)[ _]([a-z]{2,}(?:-[a-z]{2,})*)")
_SUBSPECIES = re.compile(_SPECIES.pattern + r"[ _]([a-z]{3,}(?:-[a-z]{2,})*)")
_GENUS = re.compile(r"([A-Z][a-z]{2,})[ _](?:sp|spp)\.?")
_LATIN = re.compile(
    r".{2,}(?:us|um|ensis|iensis|ii|ae|oides|ans|ens|aris|alis|ilis|icus|ix|ax|ops|is)"
)
_EPITHETS = frozenset(
    """
    alpestris aquatica arctica arvense atricapilla atricilla caerulea cinerea citrinella coelebs
    concolor corax corone cristata domestica europaea graeca japonica maculata major merula minor
    nigra noctua palustre pratense rubecula rustica scrofa sylvatica sylvestre torquata tridactyla
    urogallus vespertina virginiana viscivora vulpina
    """.split()  # noqa: SIM905
)
_FAMILY = re.compile(r"[A-Z][a-z]{3,}(?:idae|aceae)")
_BINS = frozenset(
    {"unknown", "unidentified", "unsorted", "blank", "empty", "background", "other", "others"}
    | {"noise", "none", "human", "vehicle", "misc", "uncertain"}
)
_NO_NAMES = frozenset(
    """
    album albums archive audio august autumn backup best birds bonus camera cameras campus canon
    card centre club compact copy copies day days december dcim disk drive export family favorites
    fichiers field file files film first folder folders foto fotos friends garden gopro group
    holiday holidays home house image images img import june july last location lodge march media
    memory month my new nikon november october old olympus original originals other panasonic
    paris park phone photo photographs photography photos pics picture pictures plot plots project
    raw record recorder recording recordings reserve roll sample samples season selected selection
    september series session set sets shots site sites sony sound sounds spring station stations
    study summer survey tennis test the this trail transect transects trap traps travel trip
    unnamed untitled vacation various version video videos virus visit week weeks winter work year
    circus museum campus versus consensus focus minus plus trans locus nexus
    """.split()  # noqa: SIM905
)
_KINGDOMS = frozenset(
    {"Animalia", "Plantae", "Fungi", "Chromista", "Protozoa", "Bacteria", "Archaea", "Viruses"}
)
_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")

Names = Mapping[str, str]
"""Darwin Core terms of one folder's species."""


def names_of_siblings(folders: Sequence[str], above: str) -> dict[str, Names]:
    """The names that folders tell, judged together.

    Args:
        folders: names of all the folders in one folder.
        above: name of the folder that they lie in.

    Returns:
        folder to terms: `scientificName`, `taxonRank`, `genus`, `species`, and the higher ranks
        that are told; folders without a name are left out.
    """
    told: dict[str, Names] = {f: names for f in folders if (names := _long_form(f)) is not None}
    rest = [f for f in folders if f not in told and f.lower() not in _BINS]
    shaped = {f: names for f in rest if (names := _short_form(f)) is not None}
    if not rest or len(shaped) < len(rest):
        return told
    family = above if _FAMILY.fullmatch(above) else None
    latin = [f for f in rest if _is_latin(f)]
    if family is None and (not latin or 3 * len(latin) < len(rest)):
        return told
    for folder, names in shaped.items():
        told[folder] = {**names, "family": family} if family else names
    return told


def _long_form(folder: str) -> Names | None:
    number, *words = folder.split("_")
    if len(words) != 7 or not re.fullmatch(r"[0-9]{1,7}", number) or words[0] not in _KINGDOMS:
        return None
    if not all(re.fullmatch(r"[A-Z][a-z-]+", word) for word in words[1:6]):
        return None
    if not re.fullmatch(r"[a-z-]{2,}", words[6]):
        return None
    species = f"{words[5]} {words[6]}"
    ranks = dict(zip(_RANKS, words, strict=False))
    return {"scientificName": species, "taxonRank": "species", **ranks, "species": species}


def _short_form(folder: str) -> Names | None:
    if set(re.split(r"[ _-]", folder.lower())) & _NO_NAMES:
        return None
    if genus := _GENUS.fullmatch(folder):
        return {"scientificName": genus[1], "taxonRank": "genus", "genus": genus[1]}
    match = _SPECIES.fullmatch(folder) or _SUBSPECIES.fullmatch(folder)
    if match is None:
        return None
    words = [word for word in match.groups() if word]
    species = f"{words[0]} {words[1]}"
    rank = "species" if len(words) == 2 else "subspecies"
    name = " ".join(words)
    return {"scientificName": name, "taxonRank": rank, "genus": words[0], "species": species}


def _is_latin(folder: str) -> bool:
    match = _SPECIES.match(folder)
    if match is None:
        return False
    genus, epithet = match[1].lower(), match[2]
    return epithet == genus or epithet in _EPITHETS or _LATIN.fullmatch(epithet) is not None
