"""The supervisor that starts the whole stack on a laptop, and the tools around it."""
