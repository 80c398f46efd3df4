"""The page of the meter: what was used, request by request, and whether the sums agree."""
