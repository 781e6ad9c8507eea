"""Searching codes: Bittern's engines against the machine and against their peers."""
