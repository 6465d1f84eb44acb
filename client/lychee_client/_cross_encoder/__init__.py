"""What `CrossEncoder` is made of: its pairs as calls, its scores, its arguments."""
