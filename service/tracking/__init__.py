"""MLflow: the command of its server, and the mirror that follows the store into it. Nothing here decides anything."""
