"""How sure a figure is: exact where there is a closed form, by bets or resamples elsewhere. Counts and weights in, bounds out."""
