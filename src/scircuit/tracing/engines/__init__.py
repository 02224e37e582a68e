"""Engines that ablate and measure: the readable oracle (`naive`) beside the two fast paths (`exact`, `local`)."""
