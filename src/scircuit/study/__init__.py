"""Whole studies: several conditions traced, compared and reported from one file."""
