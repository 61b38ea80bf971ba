"""Quality and speed, measured so that anyone can measure them again."""
