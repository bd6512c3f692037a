"""videoprune: early visual-token pruning for video language models."""
