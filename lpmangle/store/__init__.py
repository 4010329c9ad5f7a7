"""Where manifests are kept and found."""
