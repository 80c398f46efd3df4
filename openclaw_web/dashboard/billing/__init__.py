"""A customer's page about money: the plan, what comes next, changing and leaving it, invoices."""
