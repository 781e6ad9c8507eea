"""Relevance judgements (qrels) and runs in the files of TREC, as trec_eval reads them.

    qrels   query iteration item grade              what is right; a grade above 0 is relevant
    run     query Q0 item rank score tag            what was found

Cells are separated by whitespace. Ids that hold whitespace are written as in addresses
(``snow%20owl``), and read back as what they were. trec_eval looks at no rank: it sorts by score,
and equal scores by item, so every run that is written here has scores that fall strictly.
"""

from bittern.benchmarks.eval.trec_lines import escaped
from bittern.benchmarks.eval.trec_qrels import PlacesOf, Unknown, read_qrels, write_qrels
from bittern.benchmarks.eval.trec_runs import places_of_run, read_run, write_run

__all__ = [
    "PlacesOf",
    "Unknown",
    "escaped",
    "places_of_run",
    "read_qrels",
    "read_run",
    "write_qrels",
    "write_run",
]
