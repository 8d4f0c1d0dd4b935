# Which libraries a recipe can name, and how each builds a model
from skipless.models.libraries.builders import (
    LIBRARIES as LIBRARIES,
    ModelBuilder as ModelBuilder,
    model_builder as model_builder,
)
