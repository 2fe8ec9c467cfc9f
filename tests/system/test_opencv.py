from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from vistasks.system.opencv import installed_wheels, mixed_wheels, refuse_without_windows


def finder(**wheels: str):  # type: ignore[no-untyped-def]
    def find(name: str) -> str:
        if name.replace("-", "_") not in wheels:
            raise PackageNotFoundError(name)
        return wheels[name.replace("-", "_")]

    return find


def test_wheels_of_different_versions_are_told() -> None:
    same = finder(opencv_python="5.0.1", opencv_python_headless="5.0.1")
    assert len(installed_wheels(same)) == 2 and mixed_wheels(same) is None
    assert mixed_wheels(finder(opencv_python="5.0.1")) is None
    told = mixed_wheels(finder(opencv_python="5.0.1", opencv_contrib_python_headless="4.9"))
    assert told is not None and "opencv-python 5.0.1" in told and "headless 4.9" in told


def test_an_opencv_without_windows_is_refused() -> None:
    refuse_without_windows(lambda: "QT5")
    with pytest.raises(ValueError, match=r"--show: .*headless"):
        refuse_without_windows(lambda: "")
