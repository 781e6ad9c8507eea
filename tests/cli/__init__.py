"""The command line on real media and real weights."""
