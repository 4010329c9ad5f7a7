"""Renaming: pure, bytes to bytes."""
