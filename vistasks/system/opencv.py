"""Which of OpenCV's wheels are installed: all of them write the same folder, and the last one wins."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

_WHEELS = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)
REMEDY = "pip install --force-reinstall --no-deps opencv-python"


def installed_wheels(find: Callable[[str], str] = version) -> dict[str, str]:
    """The versions of OpenCV's wheels that are installed, by name."""
    found = {}
    for name in _WHEELS:
        try:
            found[name] = find(name)
        except PackageNotFoundError:
            continue
    return found


def mixed_wheels(find: Callable[[str], str] = version) -> str | None:
    """What to say where wheels of different versions lie over one another; None where all is well."""
    wheels = installed_wheels(find)
    if len(set(wheels.values())) < 2:
        return None
    named = ", ".join(f"{name} {number}" for name, number in wheels.items())
    return f"{named} are installed into one folder, with different versions: `{REMEDY}` mends it"


def refuse_without_windows(framework: Callable[[], str] | None = None) -> None:
    """Raises a ``ValueError`` where this OpenCV cannot open a window, as the headless wheels cannot."""
    if framework is None:
        import cv2

        # absent where the wheel that was written last has been removed, and its files with it
        framework = getattr(cv2, "currentUIFramework", lambda: "")
    if not framework():
        named = ", ".join(f"{name} {number}" for name, number in installed_wheels().items()) or "no wheel"
        raise ValueError(
            f"--show: this OpenCV opens no windows (installed: {named}; the headless one was written last): "
            f"`{REMEDY}`, or --serve 8080 for a page in a browser"
        )
