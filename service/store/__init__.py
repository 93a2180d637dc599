"""What the service remembers, in SQL: a SQLite file, PostgreSQL, or memory. One adapter a port, one transaction a call."""
