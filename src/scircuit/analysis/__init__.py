"""One file per question asked of a circuit; without torch.

The function of a question takes the tables that its `Question` needs (docs/architecture.md says what they hold), then
options, and returns a `Result`. Its docstring says the measures, as far as the words of the `Question` do not, with
their nulls, and the table behind the figure. What all of them share is said here alone: `draws` are redraws of the
null, and of the bootstrap behind every interval, which resamples sources unless something else is said; `seed` seeds
them; p is (b + 1) / (draws + 1), one-sided unless it says so. What has no answer (a circuit without edges, a table
without a column, conditions that do not compare) is refused with a `ScircuitError` that says what to do.
"""
