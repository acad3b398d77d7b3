"""Adapters round networks and formats that others made; one file each."""
