"""Show annotated images in a window, if there is a display."""

import os
import sys

import cv2
import numpy as np

from mindyolo_ext.errors import DeviceError

_QUIT = (ord("q"), 27)  # 27: escape


def check_display() -> None:
    """Raises: DeviceError without a display, where OpenCV's toolkit would end the process."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise DeviceError("--show: no display here (DISPLAY is not set); look at the copies")


class Window:
    """One window. Raises: DeviceError without a display or with an OpenCV without windows."""

    def __init__(self) -> None:
        check_display()
        try:
            cv2.namedWindow("mindyolo_ext", cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise DeviceError(
                "--show: this build of OpenCV has no windows: pip uninstall "
                "opencv-python-headless; pip install opencv-python"
            ) from error

    def show(self, title: str, image: np.ndarray, *, waits: bool) -> None:
        """Show uint8 BGR (h, w, 3), and wait for a key if ``waits``.

        Raises: KeyboardInterrupt if the key is q or escape.
        """
        cv2.setWindowTitle("mindyolo_ext", title)
        cv2.imshow("mindyolo_ext", image)
        if cv2.waitKey(0 if waits else 1) & 0xFF in _QUIT:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow("mindyolo_ext")
