"""One-shot pruning methods for weights, one file each."""
