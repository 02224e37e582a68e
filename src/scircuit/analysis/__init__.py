"""One file per question asked of a circuit; without torch.

The function of a question takes the tables that it reads, then options. What all of them share is said here alone:
`draws` are redraws of the null, and of the bootstrap behind every interval, which resamples sources unless something
else is said; `seed` seeds them; p is (b + 1) / (draws + 1). A circuit without edges is refused with a `ScircuitError`.
"""
