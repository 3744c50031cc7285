"""Find objects with an exported ONNX file: ONNX Runtime, NumPy and OpenCV, no MindSpore.

    python deploy/onnx_runtime.py MODEL.onnx PICTURE [PICTURE ...] [--save_dir runs/onnx]

Colour order, size, normalisation, anchors and class names come from the file; resizing, NMS and drawing are the
functions that training and ``test.py`` use.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))     # from a checkout that is not installed

from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.visual.detections import draw_detections


class OnnxDetector:
    """An exported file ready to look at pictures.

    Args:
        path: ``.onnx`` written by ``mindyolo-ext export`` (with decoded outputs, the default).
        threads: of ONNX Runtime, 0 for its own choice.

    Raises: FileNotFoundError; ValueError if the file is no ONNX file, lacks the metadata, or holds raw outputs.
    """

    def __init__(self, path: str | Path, *, conf_thres: float = 0.3, iou_thres: float = 0.45, threads: int = 0):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file, wanted an exported .onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options,
                                                        providers=onnxruntime.get_available_providers())
        except Exception as error:      # ONNX Runtime raises kinds of its own
            raise ValueError(f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]})") from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "input_spec" not in metadata:
            raise ValueError(f"{path}: carries no input_spec; export it with `mindyolo-ext export --format onnx`")
        if metadata["outputs"] != "boxes,scores":
            raise ValueError(f"{path}: was exported with --raw; this runner wants decoded boxes and scores")
        self.input_spec = InputSpec.from_json(metadata["input_spec"])
        names = json.loads(metadata["class_names"])
        self.class_names = names or [f"class{k}" for k in range(int(metadata["num_classes"]))]
        self.batch_size = self.session.get_inputs()[0].shape[0]
        self.options = NMSOptions(conf_thres=conf_thres, iou_thres=iou_thres)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """uint8 BGR (h, w, 3) -> (N, 6) float32 x1, y1, x2, y2 in photo pixels, score, class; falling score."""
        tensor, placement = self.input_spec.prepare(image)
        images = np.repeat(tensor[None], self.batch_size, axis=0)
        boxes, scores = self.session.run(["boxes", "scores"], {"images": images})
        return detections_to_photo(nms(boxes[0], scores[0], **self.options.as_kwargs()), placement, clip=True)


def main() -> None:
    """Annotate pictures into a folder and print the boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--save_dir", type=Path, default=Path("runs/onnx"))
    parser.add_argument("--conf_thres", type=float, default=0.3)
    parser.add_argument("--iou_thres", type=float, default=0.45)
    options = parser.parse_args()
    try:
        detector = OnnxDetector(options.model, conf_thres=options.conf_thres, iou_thres=options.iou_thres)
        options.save_dir.mkdir(parents=True, exist_ok=True)
        for path in options.pictures:
            image = read_image(path)
            begin = time.perf_counter()
            found = detector.predict(image)
            spent = (time.perf_counter() - begin) * 1e3
            write_image(options.save_dir / path.name, draw_detections(image, found, detector.class_names))
            print(f"{path}: {len(found)} boxes, {spent:.1f} ms -> {options.save_dir / path.name}")
            for *box, score, label in found:
                print(f"  {detector.class_names[int(label)]} {score:.3f} at {', '.join(f'{v:.0f}' for v in box)}")
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
