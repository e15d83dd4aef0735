"""`zeroskip bench model`: what sparsity is worth in a language model, beside every other way to shrink it."""
