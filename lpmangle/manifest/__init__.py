"""What was renamed, and the way back."""
