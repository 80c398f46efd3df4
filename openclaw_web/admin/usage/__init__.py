"""The admin's look at the meter: what does not agree, what was set right, what was refused."""
