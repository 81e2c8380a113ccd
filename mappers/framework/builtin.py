"""Which drivers come with Skerry.  Light, for processes that only start drivers."""

from pathlib import Path

OTHER_NAMES = {"bluetooth": "ble"}
"""What KubeEdge's manifests call a protocol that a driver here has another name for."""


def builtin(name: str) -> str | None:
    """The folder of the driver that Skerry comes with for this name; None when there is none."""
    folder = OTHER_NAMES.get(name, name)
    return folder if has_driver(folder) else None


def drivers() -> list[str]:
    """Names of the drivers that Skerry comes with."""
    return sorted(
        file.parent.name
        for file in Path(__file__).parents[1].glob("*/driver.py")
        if has_driver(file.parent.name)
    )


def has_driver(name: str) -> bool:
    """Whether Skerry comes with a driver of this name."""
    return (
        name != "framework"
        and name.isidentifier()
        and (Path(__file__).parents[1] / name / "driver.py").is_file()
    )
