"""Search: Bittern's engines compared with the machine's limits and with other libraries."""
