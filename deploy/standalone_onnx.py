"""Find objects with ONNX Runtime, NumPy and OpenCV alone: nothing of this project is imported.

    mindyolo-ext export --weight W.ckpt --format onnx --with_preprocess --nms --output W-whole
    python deploy/standalone_onnx.py W-whole.onnx PICTURE ...

The file holds preprocessing and NMS, so a picture goes in as it is read and boxes come out in its
pixels.
"""

import json
import sys

import cv2
import onnxruntime


def main(model: str, pictures: list[str]) -> None:
    """Print the boxes of each picture."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    names = json.loads(facts["class_names"])
    for picture in pictures:
        image = cv2.imread(picture)  # uint8 BGR (h, w, 3)
        if image is None:
            sys.exit(f"{picture}: cannot be read")
        (rows,) = session.run(["detections"], {"image": image})
        print(f"{picture}: {len(rows)} boxes")
        for _, x1, y1, x2, y2, score, label in rows:
            name = names[int(label)] if names else f"class{int(label)}"
            print(f"  {name} {score:.3f} at {x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
