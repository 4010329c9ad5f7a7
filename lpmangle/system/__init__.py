"""The operating system: files, processes."""
