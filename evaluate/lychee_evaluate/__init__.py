"""Whether scores are right: thresholds from labelled pairs, trials on real users, and the wording of instructions."""
