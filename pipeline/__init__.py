"""The pipeline, and the way to use what it pushed: `from pipeline import load_encoder`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.use.encoder import load_encoder as load_encoder


def __getattr__(name: str) -> Any:
    """Loads what is public when it is asked for, so that importing any other module of the package stays light."""
    if name == "load_encoder":
        from pipeline.use.encoder import load_encoder

        return load_encoder
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
