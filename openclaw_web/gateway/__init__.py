"""The token proxy's HTTP edge: who asks, may they, forward, settle."""
