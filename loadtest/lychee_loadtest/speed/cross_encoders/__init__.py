"""Speed of text cross-encoders beside alternatives: the same random weights, the same pairs, one machine, one run."""
