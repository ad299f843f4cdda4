"""Networks and baselines: tensors in, tensors out."""
