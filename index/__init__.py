"""Nearest neighbours over codes, the observation store, and the archive that joins them.

    Archive        open, create, search, add          archive.py (follower.py, listing.py)
      Writer       plan a change, then commit it        writer.py (adding.py, columns.py)
      Generation   one generation, never changed      generation.py (loading.py, row_map.py)
        CodeBlocks the codes of a model               engines/blocks.py
          engines  flat, ivf, gpu, sharded            engines/search_engine.py (choosing.py)
      derived      rows, codes, indexes in files      generation_files.py (derived_files.py)
      filters      `where`, written as SQL            filters.py (filter_functions.py)
      Store        the table, source of truth          store.py
      folder       archive.json, models, the lock     folder.py (models.py)

The table `observations`, one row per photograph or window of a recording:

    row              int64     position in the total order, never reused
    committed        int64     store version that last wrote the row
    id               string    unique; `occurrenceID`, or that and `#t=start,end`
    occurrenceID     string    shared by all windows of a recording
    modality         string    image or audio
    media            string    file name as the source gave it
    mediaRoot        string    folder on the machine that indexed it
    start_s, end_s   double    the window in seconds; null for a photograph
    scientificName…            Darwin Core, and other columns
    code_<digest>    binary    one column per model, bits/8 bytes; null if not coded
    embedding_<digest>         float16 list, if embeddings are stored
"""
