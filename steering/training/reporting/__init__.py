"""What a run tells people: an estimate, its progress, the card and the picture."""
