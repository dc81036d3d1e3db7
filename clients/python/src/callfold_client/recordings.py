"""Recordings, fetched from the console."""
