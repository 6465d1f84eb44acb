"""An experiment on the users of a gateway: who gets which arm, what was shown, and what came of it."""
