"""The page of the settings: what may be changed, what that means, what became of it."""
