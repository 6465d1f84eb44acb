"""What a deployment needs before it is deployed, and what it uses while it runs, in four layers."""
