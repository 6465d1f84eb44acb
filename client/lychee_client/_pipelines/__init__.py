"""Pure request plans, one module per pipeline."""
