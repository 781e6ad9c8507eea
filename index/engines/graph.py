"""A graph over binary codes: searches follow links from node to node towards the query.

The links are those of HNSW (`bittern.index.engines.hnsw`), between distinct codes. How many nodes
are kept in view, the beam, decides what is found; how wide a beam a wanted recall takes is
measured when the graph is built, on queries that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, QueryError
from bittern.index.engines import planning
from bittern.index.engines.blocks import BlockSelection, CodeBlocks
from bittern.index.engines.calibration import Curve, measured
from bittern.index.engines.distinct import DistinctCodes
from bittern.index.engines.hnsw import LEAST_LINKS, MOST_LINKS, LinkedCodes, Links
from bittern.index.engines.ivf import Allowed, ApproximateEngine, WithEffort
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates

M = 16
EF_CONSTRUCTION = 100
_MOST_EF_CONSTRUCTION = 10_000
_BEAMS = (300, 400, 600, 800, 1_200, 1_600, 2_400, 3_200)
"""Widths of the beam that are tried, in nodes."""
_WIDEST = 10_000
"""Nodes in view at most; a beam so wide takes as long as an exact search of ten million."""
_ALL = Allowed(None, 0)


class Graph:
    """See the module; made by `build` or `from_arrays`.

    Args:
        base: the codes, without tombstones.
        nodes: the distinct ones among them.
        linked: their links.
        curve: recall by width of the beam; measured if it is not given.
        check: called now and then while it is measured; what it raises ends this.
    """

    kind = "graph"
    rows_per_step = 1_000
    """Rows of 256 bits that exact search looks at while the beam moves on by one node.

    Measured: with a beam of 300 the two are equally fast over some 300,000 rows.
    """

    def __init__(
        self,
        base: CodeBlocks,
        nodes: DistinctCodes,
        linked: LinkedCodes,
        curve: Curve | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.base = base
        self._nodes = nodes
        self._linked = linked
        self._last_allowed: tuple[Allowed, NDArray[np.uint8] | None, float] = (_ALL, None, 1.0)
        self.curve = curve or measured(self._engine_of, base, _BEAMS, check)

    @classmethod
    def build(
        cls,
        blocks: CodeBlocks,
        *,
        m: int = M,
        ef_construction: int = EF_CONSTRUCTION,
        seed: int = 0,
        threads: int | None = None,
        curve: Curve | None = None,
        check: Callable[[], None] | None = None,
    ) -> Graph:
        """Build over the codes of a generation.

        Args:
            blocks: the codes; deleted ones are linked too, until they are compacted.
            m: half the links of a node: 2 to 64.
            ef_construction: nodes kept in view while looking for those to link to.
            seed: of the choice of nodes where searches begin.
            threads: the most threads while building; None for one per usable core.
            curve: recall by width of the beam; measured if it is not given.
            check: called about once a second; what it raises ends the building.

        Raises:
            QueryError: `m` or `ef_construction` is unusable.
        """
        for name, value, least, most in (
            ("m", m, LEAST_LINKS, MOST_LINKS),
            ("ef_construction", ef_construction, 1, _MOST_EF_CONSTRUCTION),
        ):
            if not least <= value <= most:
                raise QueryError(f"{name} must be {least} to {most}, not {value!r}", field=name)
        base, codes, nodes = _distinct(blocks)
        linked = LinkedCodes.built(
            codes, m=m, ef_construction=ef_construction, seed=seed, threads=threads, check=check
        )
        return cls(base, nodes, linked, curve, check)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes besides the codes: links, and Faiss's own copy of the codes."""
        return self._linked.nbytes + self._nodes.nbytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes, to be stored."""
        links = self._linked.links
        return {
            "neighbours": links.neighbours,
            "entries": links.entries,
            **self.curve.arrays(),
        }

    @classmethod
    def from_arrays(cls, base: CodeBlocks, arrays: Mapping[str, NDArray[Any]]) -> Graph:
        """Made of stored arrays and the codes that they were stored for.

        Links belong to nodes by number, and a node's number is its code's place among all
        codes; among codes of which some are equal, its place in the order of their hashes. So
        one code that has changed since can move the links of all others, which nothing here
        can tell as long as there are as many nodes: answers would stay sound and recall would
        fall without a word. The caller sees to it that every code is what it was
        (`bittern.index.engines.kept_indexes`).

        Args:
            base: the same codes in the same order as when `arrays` was called.
            arrays: of `arrays`, not trusted.

        Raises:
            ArchiveDamagedError: they do not fit together, or not so many codes.
        """
        links = _links(arrays)
        curve = Curve.from_arrays(arrays)
        if int(curve.efforts[-1]) > _WIDEST:
            raise ArchiveDamagedError(
                f"the stored graph wants a beam of {curve.efforts[-1]} nodes; build it anew"
            )
        base, codes, nodes = _distinct(base)
        return cls(base, nodes, LinkedCodes(codes, links), curve)

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Whether it is faster than exact search at this recall, and reaches it."""
        if not allowed.count or self.curve.recalls.max() < recall:
            return False
        _, beam = self._beam(k, allowed, recall)
        share = allowed.count / len(self.base)
        looked_at = len(self.base) * min(1.0, 8 * share) * self.base.bits / 256
        return beam <= _WIDEST and beam * self.rows_per_step <= looked_at

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates]:
        """See `Structure.candidates`."""
        kept, beam = self._beam(count // 2, allowed, recall)
        kept, beam = min(kept, _WIDEST), min(beam, _WIDEST)
        return self.follow(queries, count, allowed, max(kept, count), beam)

    def follow(
        self, queries: Queries, count: int, allowed: Allowed, kept: int, beam: int
    ) -> list[Candidates]:
        """Candidates that links lead to.

        Where they lead to too few, to an island or away from what may be found, all codes are
        looked at.

        Args:
            queries: what to look for.
            count: how many candidates are enough.
            allowed: what may be found.
            kept: how many nodes that may be found are kept.
            beam: how many nodes are kept in view.
        """
        if not len(self._nodes):
            return [_scanned(self.base, query, count, allowed) for query in queries]
        bitmap, share = self._allowed_nodes(allowed)
        kept = min(kept, max(1, round(share * len(self._nodes))))
        distances, nodes, errors = self._linked.search(queries, kept, max(beam, kept), bitmap)
        enough = min(count, allowed.count)
        found = []
        for query, (far, near) in enumerate(zip(distances, nodes, strict=True)):
            reached = near >= 0
            places, owners = self._nodes.places_of(near[reached], allowed.mask, count)
            if len(places) < enough or np.count_nonzero(reached) < kept:
                found.append(_scanned(self.base, queries[query], count, allowed))
                continue
            scores = far[reached][owners]
            found.append(Candidates(places, scores, float(errors[query]), -np.inf))
        return found

    def _beam(self, k: int, allowed: Allowed, recall: float) -> tuple[int, int]:
        """How many nodes to keep, and how many to keep in view for it.

        The k nearest of a share of the rows lie as far out as the k / share nearest of all.
        """
        kept = self.curve.effort(recall) * max(1.0, k / self.curve.k)
        return int(kept), int(kept * len(self.base) / max(allowed.count, 1))

    def _allowed_nodes(self, allowed: Allowed) -> tuple[NDArray[np.uint8] | None, float]:
        """Which nodes may be found, as a bitmap, and their share; kept for the next search."""
        if allowed.mask is None:
            return None, 1.0
        last, bitmap, share = self._last_allowed
        if last is not allowed:
            mask = self._nodes.any_of(allowed.mask)
            bitmap, share = np.packbits(mask, bitorder="little"), float(mask.mean())
            self._last_allowed = (allowed, bitmap, share)
        return bitmap, share

    def _engine_of(self, beam: int) -> ApproximateEngine:
        return ApproximateEngine(
            WithEffort(self, lambda q, n, allowed: self.follow(q, n, allowed, beam, beam)),
            self.base,
            always=True,
        )


def _distinct(blocks: CodeBlocks) -> tuple[CodeBlocks, NDArray[np.uint8], DistinctCodes]:
    """The codes without tombstones, one code per node, and what the nodes stand for."""
    base = CodeBlocks(blocks.bits, blocks.blocks)
    codes = base.blocks[0].codes if len(base.blocks) == 1 else base.codes
    nodes = DistinctCodes(codes)
    first = nodes.first_places()
    return base, codes if first is None else base.codes_at(first), nodes


def _links(arrays: Mapping[str, NDArray[Any]]) -> Links:
    """Stored links, of the right types and shapes; where they lead is checked later."""
    try:
        neighbours, entries = np.asarray(arrays["neighbours"]), np.asarray(arrays["entries"])
    except KeyError as error:
        raise ArchiveDamagedError(f"the stored graph lacks {error}; build it anew") from None
    fits = (
        neighbours.dtype == entries.dtype == np.int32 and neighbours.ndim == 2 and entries.ndim == 1
    )
    if not fits:
        raise ArchiveDamagedError(
            f"the stored graph is not one (neighbours {neighbours.dtype} "
            f"{list(neighbours.shape)}, entries {entries.dtype} {list(entries.shape)}); "
            "build it anew"
        )
    return Links(neighbours, entries)


def _scanned(base: CodeBlocks, query: Queries, count: int, allowed: Allowed) -> Candidates:
    """The nearest codes to one query by looking at all of them."""
    found = []
    for number, block in enumerate(base.blocks):
        start = int(base.starts[number])
        mask = None if allowed.mask is None else allowed.mask[start : start + len(block)]
        size = len(block) if mask is None else int(np.count_nonzero(mask))
        if size:
            part = BlockSelection(block, mask, size)
            found.append((start, planning.scan(part, query, count, False)[0]))
    if not found:
        return Candidates(np.empty(0, np.int64), np.empty(0), 0.0, np.inf)
    return Candidates(
        np.concatenate([start + one.places for start, one in found]),
        np.concatenate([one.distances for _, one in found]),
        max(one.error for _, one in found),
        min(one.floor for _, one in found),
    )
