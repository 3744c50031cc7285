"""Form batches with as little padding as possible, for evaluation. Uses NumPy only."""

import numpy as np

from mindyolo_ext.input_spec import InputSpec


def rectangular_batches(
    sizes: np.ndarray, batch_size: int, input_spec: InputSpec, pad: float = 0.5
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Group images into batches by their aspect ratio, and compute the input size of each batch.

    The longer side of an input is the spec's; the shorter side follows the image of the batch that
    is closest to a square. A batch with both portrait and landscape images is square.

    Args:
        sizes: height and width of every image.
        batch_size: images per batch.
        input_spec: of the model.
        pad: padding added to each side, in units of the stride, before rounding up. With 0.5, even
            a longer side that is a multiple of the stride grows: 640 becomes 672.

    Shape: sizes (N, 2) -> order (N,) int64, and (height, width) of each of the ceil(N / batch_size)
        inputs.
    Source: Gold-YOLO ``yolov6/data/datasets.py`` ``sort_files_shapes``. Unlike the original:
        images of one shape keep their order.
    """
    aspect = sizes[:, 0] / sizes[:, 1]  # height / width
    order = np.argsort(aspect, kind="stable")
    frames = []
    for start in range(0, len(order), batch_size):
        low, high = aspect[order[start]], aspect[order[min(start + batch_size, len(order)) - 1]]
        sides = np.array([high, 1.0] if high < 1 else [1.0, 1.0 / low] if low > 1 else [1.0, 1.0])
        units = np.ceil(sides * max(input_spec.size) / input_spec.stride + pad).astype(int)
        frames.append((int(units[0]) * input_spec.stride, int(units[1]) * input_spec.stride))
    return order, frames
