"""Puts original names back into text."""
