"""Mangled names in text, turned back."""
