"""What a user sees of where a trial's model goes wrong: pictures of what `trainers.analysis` found."""
