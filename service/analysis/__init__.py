"""What a user sees of where a trial's model goes wrong (`figures`), and of what a study's search has learned (`analyst`)."""
