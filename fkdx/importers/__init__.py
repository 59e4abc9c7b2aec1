"""Readers of foreign soft-label formats; one file a format."""
