"""A customer's namespace and pod: settings, status, provisioning."""
