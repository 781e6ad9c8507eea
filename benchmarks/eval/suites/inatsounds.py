"""iNatSounds 2024 (Chasmai et al., NeurIPS 2024, arXiv 2506.00343): species' names to sounds.

The data set's own main figure is the mean over species of the average precision of all recordings
of a split; with names as queries, that is `AP` here, with one query per species. Its evaluation
uses 1,212 of its 5,569 species, those that `evaluation` marks.

The release writes ``NaN`` where a location's uncertainty is unknown, which is not JSON, so its
files (45 MB for 137,012 recordings) are read whole, in a second and 200 MB of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import DataFile, Limit, Pair, Suite, check_layout
from bittern.benchmarks.eval.suites.coco import Category, Coco, CocoLayout, read_coco
from bittern.benchmarks.eval.suites.readers import SuiteFile
from bittern.benchmarks.eval.suites.soundscapes import check_soundscapes, soundscape_tasks
from bittern.benchmarks.eval.suites.species import SpeciesMedia, SpeciesTask
from bittern.benchmarks.eval.tasks import AUDIO, TEXT, Classes, Protocol, Task
from bittern.errors import InvalidInputError, LayoutError
from bittern.text import agreeing, first_few, some_of

_ORIGIN = "the iNatSounds 2024 release (visipedia/inat_sounds)"
_SPLITS = {
    "test": ("49,527", "27 GB", "4.0 MB"),
    "val": ("45,698", "25 GB", "3.7 MB"),
    "train": ("137,012", "81 GB", "14 MB"),
}
"""Recordings, their size, and the size of the packed annotations."""
_BY_WINDOWS = {
    "max": "A recording counts by its best window (--windows max)",
    "mean": "A recording counts by the mean distance of its windows (--windows mean)",
    "separate": "Every window is an item, relevant where its recording is (--windows separate)",
}


def _layout(split: str, *, optional: bool = False) -> tuple[DataFile, DataFile]:
    recordings, size, table = _SPLITS[split]
    what = f"annotations of the {split} split"
    origin = f"{_ORIGIN}, {split}.json.tar.gz, unpacked"
    sounds = f"{_ORIGIN}, {split}.tar.gz, unpacked"
    return (
        DataFile(f"{split}.json", what, origin, f"{table} packed", optional),
        DataFile(f"{split}/", f"{recordings} recordings, WAV 22.05 kHz", sounds, size, optional),
    )


class INatSounds(Suite):
    """Names of species against the recordings of a split."""

    name = "inatsounds"
    about = "iNatSounds 2024 (arXiv 2506.00343): names of species against recordings"
    layout = tuple(file for split in _SPLITS for file in _layout(split, optional=split != "test"))
    limits = (Limit("database", "it names the split that is searched", ("train", "val", "test")),)
    measures = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")
    pairs = ((TEXT, AUDIO),)

    def check_options(self, protocol: Protocol) -> None:
        """Refuse other splits, and to search what is fitted on."""
        super().check_options(protocol)
        if protocol.fit_on == "training" and protocol.database == "train":
            raise InvalidInputError(
                "the training split is both fitted on and searched; search another --database, or "
                "--fit-on items",
                field="database",
            )

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with the splits that are used; soundscapes are checked too."""
        files = [file for split in _used(protocol) for file in _layout(split)]
        root = check_layout(data, files, self.name)
        if protocol.soundscapes:
            check_soundscapes(Path(protocol.soundscapes), protocol)
        return root

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """Names of the evaluated species against a split, and against soundscapes if given."""
        cocos = {split: _read(root, split, protocol) for split in _used(protocol)}
        categories = _used_categories(cocos)
        taxa = [category.taxon for category in categories]
        classes = Classes([t.get("vernacularName", t["scientificName"]) for t in taxa], taxa)
        evaluated = np.array([bool(each.fields["evaluation"]) for each in categories], np.bool_)
        searched, *training = (
            _recordings(root, split, coco, categories, protocol) for split, coco in cocos.items()
        )
        left_out = [f"Of the training split: {line}" for each in training for line in each.left_out]
        split = next(iter(cocos))
        task = SpeciesTask(
            classes=classes,
            items=searched.items,
            protocol=protocol,
            names=np.flatnonzero(evaluated),
            training=training[0].items if training else None,
            left_out=(*searched.left_out, *left_out),
            notes=[f"The {split} split is searched. {_evaluated_note(classes, evaluated)}"],
            more_notes=[
                f"{_BY_WINDOWS[protocol.windows]}; others report averages over a file's windows"
            ],
        ).task()
        if not protocol.soundscapes:
            return [task]
        # The training split has seen species only by now: all others are novel to soundscapes.
        plain = replace(protocol, novel="none")
        fitted = task if task.training else None
        folder = Path(protocol.soundscapes)
        return [task, *soundscape_tasks(folder, plain, fitted=fitted, prefix="soundscapes ")]


def _used(protocol: Protocol) -> list[str]:
    """The split that is searched, and the one that systems are fitted on."""
    return [protocol.database or "test", *(["train"] if protocol.fit_on == "training" else [])]


def _read(root: Path, split: str, protocol: Protocol) -> Coco:
    """The annotations of a split."""
    path = root / f"{split}.json"
    layout = CocoLayout(
        items="audio",
        reference="audio_id",
        noun="recording",
        origin=f"{path.name}.tar.gz of {_ORIGIN}",
        category_fields=("audio_dir_name", "evaluation"),
        one_each=True,
        whole=True,
    )
    coco = read_coco(path, layout, protocol.unknown)
    for number, category in enumerate(coco.categories):
        name, evaluation = category.fields.values()
        if evaluation not in (0, 1) or not isinstance(name, str) or not name.strip():
            raise SuiteFile(path, layout.origin).wrong(
                "categories with 'evaluation' 0 or 1 and 'audio_dir_name'",
                f"categories[{number}]: {dict(category.fields)!s:.80}",
            )
    return coco


def _used_categories(cocos: dict[str, Coco]) -> list[Category]:
    """Species that are evaluated or that some split has; an id means the same in all splits."""
    found: dict[int, tuple[str, Category]] = {}
    present: set[int] = set()
    for split, coco in cocos.items():
        present |= {coco.categories[n].id for n in np.unique(coco.labels).tolist() if n >= 0}
        for category in coco.categories:
            first, known = found.setdefault(category.id, (split, category))
            one, other = known.taxon["scientificName"], category.taxon["scientificName"]
            if one != other:
                raise LayoutError(
                    f"category {category.id} is {one[:60]} in {first}.json and {other[:60]} in "
                    f"{split}.json: they are of different releases; take both from {_ORIGIN}",
                    field="data",
                )
    return [
        category
        for _, category in found.values()
        if category.fields["evaluation"] or category.id in present
    ]


def _recordings(
    root: Path, split: str, coco: Coco, categories: Sequence[Category], protocol: Protocol
) -> SpeciesMedia:
    """The labelled recordings of a split whose files exist."""
    path = root / f"{split}.json"
    numbers = {category.id: number for number, category in enumerate(categories)}
    class_of = np.array([numbers.get(category.id, -1) for category in coco.categories], np.int32)
    rows = np.flatnonzero(coco.labels >= 0)
    files = [
        _file(path, split, coco.files[row], coco.categories[coco.labels[row]])
        for row in rows.tolist()
    ]
    if len(set(files)) < len(files):
        again = next(file for file in files if files.count(file) > 1)
        got = f"two recordings with the file {again[:120]!r}"
        raise SuiteFile(path, _ORIGIN).wrong("a file for each recording", got)
    ids = [file.rpartition(".")[0] or file for file in files]
    media = SpeciesMedia(
        root=root,
        modality=AUDIO,
        ids=ids if len(set(ids)) == len(ids) else files,
        files=files,
        classes=class_of[coco.labels[rows]],
        taxa=[category.taxon for category in categories],
        columns={
            "rightsHolder": [coco.holders[row] for row in rows.tolist()],
            "license": [coco.licences[row] for row in rows.tolist()],
        },
        splits=[split] * len(files),
        left_out=coco.left_out,
    )
    return media.present(protocol.missing, f"recordings that {path.name} lists")


def _file(path: Path, split: str, name: str, category: Category) -> str:
    """The file below the data folder: ``test/<audio_dir_name>/<name>.wav``."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name:
        got = f"file_name {name[:80]!r}, which leads out of the data folder"
        raise SuiteFile(path, _ORIGIN).wrong("files below the split", got)
    if len(parts) == 1:
        return f"{split}/{category.fields['audio_dir_name'].strip()}/{name}"
    return name if parts[0] == split else f"{split}/{name}"


def _evaluated_note(classes: Classes, evaluated: NDArray[np.bool_]) -> str:
    """Which species are queries, in a sentence."""
    number = int(evaluated.sum())
    sentence = (
        f"{some_of(number, len(classes), 'species', 'species')} {agreeing(number, 'is', 'are')} "
        "searched, which the data set marks for evaluation"
    )
    others = [classes.names[i] for i in np.flatnonzero(~evaluated).tolist()]
    if not others:
        return sentence
    return f"{sentence}; recordings of the others are ranked as well ({first_few(others)})"
