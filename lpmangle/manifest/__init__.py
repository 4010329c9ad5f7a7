"""What was renamed, and how to undo it."""
