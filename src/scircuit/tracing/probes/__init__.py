"""Forward passes for single questions: mediation, interactions, paths, and any edit read anywhere."""
