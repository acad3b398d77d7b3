"""Measurements that anyone can rerun; each prints a table and can keep it as JSON."""
