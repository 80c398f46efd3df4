"""The page for a customer's own programs: API access, its keys, and how to use them."""
