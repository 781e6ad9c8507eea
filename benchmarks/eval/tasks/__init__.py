"""Tasks and their protocol, below everything else of `bittern eval`.

task.py      the protocol's options; queries, items, relevance
prompts.py   queries in words, from templates
splits.py    taxonomic levels, seen and novel classes, queries without a relevant item
qrels.py     judgements in TREC's files
"""

from bittern.benchmarks.eval.tasks.task import (
    AUDIO,
    IMAGE,
    TEXT,
    Candidates,
    Classes,
    Contents,
    Items,
    Level,
    Novel,
    Protocol,
    QuerySet,
    Relevance,
    Selection,
    Task,
    TrainingSplit,
    Windows,
    ranges,
)

__all__ = [
    "AUDIO",
    "IMAGE",
    "TEXT",
    "Candidates",
    "Classes",
    "Contents",
    "Items",
    "Level",
    "Novel",
    "Protocol",
    "QuerySet",
    "Relevance",
    "Selection",
    "Task",
    "TrainingSplit",
    "Windows",
    "ranges",
]
