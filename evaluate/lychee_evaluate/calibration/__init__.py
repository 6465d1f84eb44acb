"""From labelled pairs to a threshold and a score mapping."""
