"""The checks behind `check("04.cosine_similarity", answer)`: see `lasslab.course.exercises`."""
