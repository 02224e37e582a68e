"""From AnnData to token sequences: gene identity, counts, and the two tokenizers."""
