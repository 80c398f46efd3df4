"""The page of the box: how it is, what runs, what may be done, what it writes."""
