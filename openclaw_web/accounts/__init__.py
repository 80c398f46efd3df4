"""Who somebody is: customers, sign-in, sessions, audit, mail outbox."""
