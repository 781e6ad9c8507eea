"""How good and how fast: measured on this machine, printed, never passed or failed."""
