"""Generated scenes: real objects on real photos, with exact annotations, in the layouts of real data sets."""

from skipless.data.scenes.compose import SIZES, Scene, SceneObject, Shapes, compose
from skipless.data.scenes.sources import Objects, Sources, load_sources
from skipless.data.scenes.write import Layout, WrittenScenes, read_scenes, write_scenes

__all__ = [
    "SIZES",
    "Layout",
    "Objects",
    "Scene",
    "SceneObject",
    "Shapes",
    "Sources",
    "WrittenScenes",
    "compose",
    "load_sources",
    "read_scenes",
    "write_scenes",
]
