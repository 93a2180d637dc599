"""What trials leave on disk, or in object storage: a state to resume from, and the export of their best report."""
