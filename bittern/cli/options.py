"""Parameters that several commands share, and opening the archive that one names."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI
    from bittern.query import SearchOptions
    from bittern.service.sources import SourceOptions

_ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}$")
_Function = TypeVar("_Function", bound=Callable[..., None])


def grouped(function: _Function) -> _Function:
    """Let parameters of a command be dataclasses: each field becomes an option of its own."""
    groups: dict[str, type] = {}
    parameters = []
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        group = hints[name]
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(annotation=group, kind=parameter.KEYWORD_ONLY))
            continue
        groups[name] = group
        types = get_type_hints(group, include_extras=True)
        for field in fields(group):
            default = parameter.empty if field.default is MISSING else field.default
            option = parameter.replace(
                name=field.name,
                annotation=types[field.name],
                default=default,
                kind=parameter.KEYWORD_ONLY,
            )
            parameters.append(option)

    @wraps(function)
    def command(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        function(**values)

    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command  # type: ignore[return-value]  # typer calls it with options as keywords


def flag(name: str, text: str, **more: Any) -> Any:
    """An option that takes no value."""
    return typer.Option(name, help=text, metavar="", **more)


def _folder_only(archive: Path) -> Path:
    """Refuse the HOST:PORT of a server where only a folder will do."""
    from bittern.errors import InvalidInputError

    if _ADDRESS.match(str(archive)) and not archive.exists():
        raise InvalidInputError(
            f"'{archive}' is the address of a server, and this command needs the archive's folder: "
            "run it on the machine that has the archive"
        )
    return archive


ArchivePath = Annotated[Path, typer.Argument(help="Archive folder.", callback=_folder_only)]
NewArchivePath = Annotated[
    Path, typer.Argument(help="Archive folder; made if it does not exist.", callback=_folder_only)
]
FolderOrServer = Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")]
ArchiveName = Annotated[
    str, typer.Option("--archive", help="Name of the archive, if a server has several.")
]
Snapshot = Annotated[
    str | None, typer.Option(help="Name of a snapshot, instead of the newest state.")
]
Where = Annotated[str | None, typer.Option(help="SQL condition over metadata columns.")]
Json = Annotated[bool, flag("--json", "Print JSON for programs.")]
Source = Annotated[
    str, typer.Argument(help="Folder of media, table, export of a website, or address (URL).")
]
Model = Annotated[
    str,
    typer.Option(
        help="Encoder, model of the archive, or saved model: its folder, or its name in ./models "
        "or $BITTERN_MODELS. By default the archive's model; `field` if it is new.",
        show_default=False,
    ),
]
OnDuplicate = Annotated[
    Literal["skip", "overwrite", "error"],
    typer.Option(
        metavar="ACTION", help="For items already in the archive: skip, overwrite or error."
    ),
]
KeepEmbeddings = Annotated[
    bool, flag("--store-embeddings", "Store float16 embeddings beside the codes.")
]
Embeddings = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Read embeddings that exist instead of the media: a Parquet file, such as `bittern "
        "encode --store-embeddings` writes, or a folder with embeddings.npy and ids.txt.",
    ),
]
Strict = Annotated[bool, flag("--strict", "Fail at the end if any item failed.")]
Report = Annotated[
    Path | None, typer.Option(help="Write a JSON report to this file while the job runs.")
]
Bits = Annotated[
    int | None,
    typer.Option(help="Code length, if a new hasher is fitted. [default: 256]", show_default=False),
]
HasherKind = Annotated[
    Literal["pca", "itq", "lsh"] | None,
    typer.Option(
        metavar="pca|itq|lsh",
        help="Kind of hasher, if a new one is fitted. By default the encoder's own.",
    ),
]

FORMATS = (
    "camtrap-dp",
    "coco",
    "xeno-canto",
    "darwin-core",
    "inaturalist-open-data",
    "inaturalist",
    "tar",
    "folder",
    "manifest",
)
"""Names of `bittern.service.sources.formats.READERS`, which takes longer to load."""


_reading = partial(typer.Option, rich_help_panel="Reading the source")
Fetch = Annotated[
    list[str] | None,
    _reading(
        metavar="PREFIX", help="Allow downloads from addresses that begin with this. Repeatable."
    ),
]


@dataclass
class Reading:
    """How to read a source."""

    format: Annotated[
        str | None,
        _reading(metavar="NAME", help=f"Format: {', '.join(FORMATS)}. By default detected."),
    ] = None
    media: Annotated[
        str | None, _reading(help="Folder or address of the media, if not beside the source.")
    ] = None
    rename: Annotated[
        list[str] | None,
        _reading(
            metavar="HEADING=NAME", help="Read the column HEADING of a table as NAME. Repeatable."
        ),
    ] = None
    include: Annotated[
        list[str] | None,
        _reading(metavar="GLOB", help="Only files like this, such as '*.jpg'. Repeatable."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _reading(metavar="GLOB", help="Skip files and folders like this. Repeatable."),
    ] = None

    def options(self, fetch: list[str] | None = None) -> SourceOptions:
        """The same for a job, with the addresses that may be fetched.

        Raises:
            InvalidInputError: a renaming that is not HEADING=NAME.
        """
        from bittern.errors import InvalidInputError
        from bittern.service.sources import SourceOptions

        names: dict[str, str] = {}
        for renaming in self.rename or ():
            heading, equals, name = renaming.rpartition("=")
            if not (heading and equals and name):
                raise InvalidInputError(
                    "--rename takes HEADING=NAME, as in --rename 'file name=media', not "
                    f"{renaming!r}",
                    field="rename",
                )
            names[heading] = name
        return SourceOptions(
            format=self.format,
            media=self.media,
            rename=names,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            fetch=tuple(fetch or ()),
        )


COMMIT_VARIABLES = {
    "commit_items": "BITTERN_COMMIT_ITEMS",
    "commit_s": "BITTERN_COMMIT_SECONDS",
}
"""Environment variables for when a job commits."""


def commit_settings() -> dict[str, Any]:
    """Fields of a job from `COMMIT_VARIABLES`."""
    return {field: os.environ[v] for field, v in COMMIT_VARIABLES.items() if os.environ.get(v)}


def opened_archive(
    archive: str,
    name: str = "",
    snapshot: str | None = None,
    search: SearchOptions | None = None,
) -> ArchiveAPI:
    """Open the folder, or connect to the server, that `archive` names.

    Args:
        archive: folder, or HOST:PORT.
        name: which archive of a server.
        snapshot: state of a folder; None for the newest.
        search: how a folder is searched.
    """
    from bittern.errors import ArchiveNotFoundError, InvalidInputError

    if Path(archive).exists():
        import bittern

        return bittern.open(archive, search=search, snapshot=snapshot)
    if _ADDRESS.match(archive):
        if snapshot is not None:
            raise InvalidInputError(
                "a server has the newest state; name the archive's folder to use a snapshot",
                field="snapshot",
            )
        from bittern.client import connect

        try:
            return connect(archive, archive=name)
        except ArchiveNotFoundError as error:
            message = error.message.replace("with archive=...", "with --archive")
            raise ArchiveNotFoundError(message, field=error.field, details=error.details) from None
    raise ArchiveNotFoundError(
        f"there is no archive at '{archive}', and this is not HOST:PORT of a server. "
        "Make one with: bittern index ARCHIVE FOLDER"
    )
