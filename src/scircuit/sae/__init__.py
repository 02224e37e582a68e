"""Sparse autoencoders: variants, training, files, quality. Tensors in, tensors out; the settings need no torch."""
