"""What the service remembers: the store's tables on SQLite or PostgreSQL, and the same contract in memory."""
