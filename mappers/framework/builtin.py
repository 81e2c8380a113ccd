"""Which drivers come with Skerry.  Light, for processes that only start drivers."""

from pathlib import Path


def has_driver(name: str) -> bool:
    """Whether Skerry comes with a driver of this name."""
    return (
        name != "framework"
        and name.isidentifier()
        and (Path(__file__).parents[1] / name / "driver.py").is_file()
    )
