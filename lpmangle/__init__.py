"""Rename the symbols of Xen livepatch payloads so that payloads can be loaded side by side."""

__version__ = "0.2.0"
