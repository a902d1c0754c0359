"""Running the course: strict notebook runs, exercise checks and the report."""
