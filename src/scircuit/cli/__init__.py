"""Commands, thin: each reads its options and calls one function of the rooms below."""
