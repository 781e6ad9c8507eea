"""Retrieval benchmarks: `bittern eval SUITE --data FOLDER --model NAME --output RUN`.

    suites/       published data sets: queries, items, relevance        -> tasks.Task
    embeddings/   items and queries through the towers, in shards, once -> EmbeddedRows
    systems/      float vectors, training-free and learned codes, PQ    -> systems.base.Fitted
    ranking/      distances, windows, ties: ranks of relevant items     -> measures.Ranks
    measures/     values per query, computed from ranks
    measuring     fits, ranks and measures one system at one length     -> cells.Cell, a file each
    aggregate     means over queries, with intervals (`statistics`)     -> results.Row
    comparisons   paired tests of systems
    outcome       a whole run, with some hits (`showing`)               -> results.Results
    report/       results.json, tables, plots, one page

A run is repeatable from its folder: everything that decides a number is in `results.json`.
"""
