"""Sources, pipeline, engine and indexing, with a toy encoder."""
