"""What astronomers look at."""
