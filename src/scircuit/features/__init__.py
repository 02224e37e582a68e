"""What latents respond to: catalogue, enrichment, labels, and which of them to ablate."""
