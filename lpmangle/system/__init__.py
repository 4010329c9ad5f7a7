"""The operating system: files, processes; and what Python has, but quicker to load (`records`)."""
