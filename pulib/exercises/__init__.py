"""The exercises of the course, one file per notebook."""

from . import nb01, nb02, nb03, nb04, nb05, nb06, nb07, nb08
from .base import Exercise

EXERCISES: dict[str, Exercise] = {exercise.key: exercise for part in (nb01, nb02, nb03, nb04, nb05, nb06, nb07, nb08) for exercise in part.EXERCISES}
