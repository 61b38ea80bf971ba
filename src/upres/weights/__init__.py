"""Which checkpoints exist and where their files are. Knows no torch."""
