"""iNaturalist 2024 (iNat24): species names to 5,000,000 images of 10,000 species.

`train.json` is read once, element by element, into compact columns: 1,000,000 images take 21 s and
270 MB at the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from bittern.benchmarks.eval.suites.base import DataFile, Limit, Pair, Suite, path_of
from bittern.benchmarks.eval.suites.coco import Coco, CocoLayout, read_coco
from bittern.benchmarks.eval.suites.readers import Texts
from bittern.benchmarks.eval.suites.species import SpeciesMedia, SpeciesTask
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Classes, Protocol, Task

_RELEASE = "the iNaturalist 2024 (iNat24) release of INQUIRE"
METADATA = DataFile(
    "train.json|inat24/train.json",
    "iNat24's images, species and labels, COCO-style",
    f'{_RELEASE}, unpacked from "train.json.tar.gz"',
    "438 MB packed, over 1 GB unpacked",
)
IMAGES = DataFile(
    "train/|inat24/train/",
    "iNat24's 5,000,000 training images, in a folder for each of 10,000 species",
    f'{_RELEASE}, unpacked from "train.tar.gz"',
    "441 GB",
)
LISTED = "images that train.json lists"
_LAYOUT = CocoLayout("images", "image_id", "image", METADATA.origin)


class INat24(Suite):
    """Names of species find photographs of iNaturalist 2024."""

    name = "inat24"
    about = "iNaturalist 2024: species names to 5,000,000 photographs (arXiv 2411.02537)"
    layout = (METADATA, IMAGES)
    limits = (Limit("database", "iNat24 is published as one split", ("train",)),)
    measures = ("AP_minR@50", "AP", "nDCG@50", "R-prec", "P@10", "MRR")
    pairs = ((TEXT, IMAGE),)

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """Names of species to photographs."""
        photographs = photographs_of(read_images(root, protocol), root)
        photographs = photographs.present(protocol.missing, LISTED)
        classes = Classes([taxon["scientificName"] for taxon in photographs.taxa], photographs.taxa)
        left_out = photographs.left_out
        return [SpeciesTask(classes, photographs.items, protocol, left_out=left_out).task()]


def read_images(folder: Path, protocol: Protocol) -> Coco:
    """The images of `train.json`.

    Raises:
        LayoutError: it cannot be used.
        QrelsError: annotations of unknown images or categories.
    """
    return read_coco(path_of(folder, METADATA), _LAYOUT, protocol.unknown)


def photographs_of(coco: Coco, folder: Path) -> SpeciesMedia:
    """The images as media of species, in the order of `train.json`."""
    return SpeciesMedia(
        root=path_of(folder, IMAGES).parent,
        modality=IMAGE,
        ids=Texts(pa.array(coco.ids)),
        files=coco.files,
        classes=coco.labels,
        taxa=[category.taxon for category in coco.categories],
        columns={"rightsHolder": coco.holders, "license": coco.licences},
        left_out=coco.left_out,
    )
