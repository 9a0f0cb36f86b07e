"""Stage render: the embedded corpus."""
