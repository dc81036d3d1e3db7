"""Watches the PBXs: what callbacks show of each of them beyond its calls."""
