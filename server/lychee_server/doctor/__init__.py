"""What `lychee doctor` checks on the machine of a server, and the bundle that it writes for whoever helps."""
