"""Whole jobs, from file to file."""
