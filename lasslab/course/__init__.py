"""Running the course: strict notebook runs, exercise checks and the report."""

from lasslab.course.exercises import check
from lasslab.course.outputs import record

__all__ = ["check", "record"]
