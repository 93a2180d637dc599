"""What trials leave on disk: a state to resume from, and the export of their best report."""
