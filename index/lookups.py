"""The look-up indexes of an archive's store: on which columns, from which size, when renewed.

A small archive is scanned faster than an index is kept. From `LOOKUPS_FROM` rows on, the
columns below are indexed by LanceDB, so that finding an observation by its name, or those
that a commit has changed, costs the same in an archive of any size. Making or renewing an
index is a commit of its own: the store's version goes up though no row has changed.

Which columns, and how, was measured at 10 million rows. Indexes on columns where most
conditions meet a large share of the rows (license, modality) made them slower, so those
columns have none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from bittern.index.store import LookupKind, Store

LOOKUPS_FROM = 50_000
"""Rows from which on an archive has look-up indexes."""
COLUMNS: Mapping[str, LookupKind] = {
    "id": "sorted",
    "occurrenceID": "sorted",
    "row": "sorted",
    "committed": "sorted",
    "scientificName": "sorted",
    "family": "bitmap",
    "genus": "bitmap",
    "species": "sorted",
    "eventDate": "sorted",
    "decimalLatitude": "sorted",
    "decimalLongitude": "sorted",
    "countryCode": "bitmap",
}
"""Indexed columns, and how."""
_CHEAP_ROWS = 200_000
"""A compaction of so many rows takes a fraction of a second: no reason to put it off."""
_WORTH_SHARE = 0.1
"""Share of rows that must have changed before a larger archive is compacted.

A compaction takes seconds for each million rows of the archive, looking through a tenth of
them that no index knows takes hundredths of a second."""
MOST_SMALL_FILES = 64
"""So many files of single commits make a look-up in a large archive twice as long; to look for
the 1,000 names of a batch costs about a millisecond for each of them."""
_log = logging.getLogger(__name__)


def make_lookups(store: Store) -> None:
    """Index the columns of a store that is large enough and whose columns are not indexed."""
    if store.count() < LOOKUPS_FROM:
        return
    missing = [name for name in COLUMNS if name not in store.lookups()]
    if missing:
        _log.info("indexing %d columns of %d rows for look-ups", len(missing), store.count())
    for name in missing:
        store.make_lookup(name, COLUMNS[name])


def compact_if_worth_it(
    store: Store, changed: int, most_small_files: int = MOST_SMALL_FILES
) -> bool:
    """Compact the store, unless that costs more than it brings.

    Every compaction renews the look-up indexes as a whole.

    Args:
        store: the table.
        changed: rows that were written or deleted since the last compaction.
        most_small_files: so many files of single commits are worth it in any case.

    Returns:
        whether it was compacted.
    """
    rows = store.count()
    worth = rows <= _CHEAP_ROWS or changed >= _WORTH_SHARE * rows
    if not worth and store.small_files() < most_small_files:
        return False
    store.compact()
    return True
