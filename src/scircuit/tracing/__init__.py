"""Interventions on latents, the responses of all downstream latents, and their moments over cells."""
