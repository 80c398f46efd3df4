"""What an assistant remembers: saved while it sleeps, kept sealed, brought back."""
