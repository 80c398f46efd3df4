"""What changes two areas at once, written once, in order, in one transaction."""
