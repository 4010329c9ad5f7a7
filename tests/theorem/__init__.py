"""Stacks of payloads mean after mangling what they meant before."""
