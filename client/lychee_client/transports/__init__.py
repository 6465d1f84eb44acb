"""Where bytes are sent: one module per protocol."""
