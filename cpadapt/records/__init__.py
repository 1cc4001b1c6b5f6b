"""What was asked and what came out."""
