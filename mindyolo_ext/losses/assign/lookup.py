"""Look up values of classes and of matched boxes, without a loop over images or boxes."""

from mindyolo_ext.backend import Tensor, float32, int32, ops


def rows_of_classes(values: Tensor, label: Tensor) -> Tensor:
    """Select the values of each box's class: (B, K, A) and class (B, M) -> (B, M, A)."""
    batch, number, predictions = values.shape
    return ops.gather(
        ops.reshape(values, (batch * number, predictions)),
        _image_rows(batch, number) + ops.cast(label, int32),
        0,
    )


def value_of_class(values: Tensor, label: Tensor) -> Tensor:
    """Select the value of each prediction's class: (B, K, A) and class (B, A) -> (B, A)."""
    batch, number, predictions = values.shape
    rows = _image_rows(batch, number) + ops.cast(label, int32)
    places = rows * predictions + ops.reshape(
        ops.arange(predictions, dtype=int32), (1, predictions)
    )
    return ops.gather(ops.reshape(values, (-1,)), places, 0)


def of_matched_box(columns: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """Select n numbers of each prediction's box: (n, B, M) and box index (B, A) int -> n tensors
    (B, A).
    """
    number, batch, count = columns.shape
    flat = ops.reshape(columns, (number, batch * count))
    return ops.unbind(ops.gather(flat, _image_rows(batch, count) + index, 1), 0)


def match_matrix(matched: Tensor, index: Tensor, count: int) -> Tensor:
    """Encode matches as one-hot: matched (B, A) 0/1 and box index (B, A) int -> (B, M, A) float
    0/1, with M = ``count``.
    """
    numbers = ops.reshape(ops.arange(count, dtype=int32), (1, -1, 1))
    return ops.cast(ops.expand_dims(index, 1) == numbers, float32) * ops.expand_dims(matched, 1)


def _image_rows(batch: int, rows: int) -> Tensor:
    """Return the index of the first of ``rows`` rows of every image, (B, 1) int."""
    return ops.reshape(ops.arange(batch, dtype=int32), (batch, 1)) * rows
