"""Everything that reproduces the published study (arXiv 2603.01752), and nothing else."""
