"""What every area stands on: settings, clocks, database, errors, logs, secrets. Knows nobody."""
