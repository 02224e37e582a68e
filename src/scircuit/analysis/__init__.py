"""One file per question asked of a circuit; without torch."""
