"""Retrieval benchmark runs: `bittern eval SUITE --data FOLDER --model NAME --out RUN`.

    suites/       what is asked of which items, and what is right       -> tasks.Task
    embeddings/   items and queries through the towers, in shards, once -> EmbeddedRows
    systems/      float vectors, training-free and learned codes, PQ    -> systems.base.Fitted
    ranking/      distances, windows, ties: where the right ones stand  -> places.Places
    measures/     one small file each, over places
    statistics    intervals and paired tests over queries               -> results.Results
    report/       results.json, tables, plots, one page

A run is repeatable from its folder: everything that decides a number is in `results.json`.
"""
