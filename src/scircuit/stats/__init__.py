"""Multiple testing, sign-flip tests and resampling intervals: numpy in, numpy out."""
