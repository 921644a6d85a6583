"""The measured bars: lockstep's quantized graphs beside those of the vendors' own quantizers, in one run."""
