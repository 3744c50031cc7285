"""Find objects with an exported ONNX file: ONNX Runtime, NumPy and OpenCV, no MindSpore.

    python deploy/onnx_runtime.py MODEL.onnx PICTURE_OR_FOLDER ... [--save_dir runs/onnx]

Colour order, size, normalisation, anchors and class names come from the file; resizing, NMS and
drawing are the functions that training and ``test.py`` use. The files of a routed model are run by
``routed_runtime.py``.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

# from a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindyolo_ext.class_names import default_names
from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.engine.sources import Output, claim_folder, find_sources, name_outputs
from mindyolo_ext.errors import shown
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.input_spec import InputSpec, Placement
from mindyolo_ext.visual.detections import draw_detections


class OnnxFile:
    """A file of ``mindyolo-ext export``, loaded, with what it says about itself.

    Args:
        path: ``.onnx`` with decoded outputs, the default of the export.
        threads: of ONNX Runtime, 0 for its own choice.

    Raises: FileNotFoundError; ValueError if the file is no ONNX file, lacks the metadata, or holds
    raw outputs.
    """

    def __init__(self, path: str | Path, *, threads: int = 0):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file, wanted an exported .onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise ValueError(
                f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]})"
            ) from error
        self.path, self.metadata = path, self.session.get_modelmeta().custom_metadata_map
        if "input_spec" not in self.metadata:
            raise ValueError(
                f"{path}: carries no input_spec; export it with `mindyolo-ext export --format onnx`"
            )
        if self.metadata["outputs"] != "boxes,scores":
            raise ValueError(
                f"{path}: was exported with --raw; this runner wants decoded boxes and scores"
            )
        self.input_spec = InputSpec.from_json(self.metadata["input_spec"])
        names = json.loads(self.metadata["class_names"])
        self.class_names = names or default_names(int(self.metadata["num_classes"]))
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.batch_size = self.session.get_inputs()[0].shape[0]
        self.part = self.metadata.get("part", "")

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; ``arrays`` holds the inputs by name, and may hold more."""
        values = self.session.run(self.outputs, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, values))


class OnnxDetector(OnnxFile):
    """An exported file ready to look at pictures.

    Args:
        path, threads: as ``OnnxFile``.
        conf_thres, iou_thres: score below which boxes are dropped, overlap above which they are
            merged.

    Raises: as ``OnnxFile``; ValueError for a part of a routed model.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        conf_thres: float = 0.3,
        iou_thres: float = 0.45,
        threads: int = 0,
    ):
        super().__init__(path, threads=threads)
        if self.part:
            files = " ".join(json.loads(self.metadata["files"]).values())
            raise ValueError(
                f"{path}: holds a part of a routed model only, the {self.metadata['holds']}; run "
                f"all its parts with `python deploy/routed_runtime.py {files} PICTURE`"
            )
        self.options = NMSOptions(conf_thres=conf_thres, iou_thres=iou_thres)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """uint8 BGR (h, w, 3) -> (N, 6) float32 x1, y1, x2, y2 in photo pixels, score, class;
        falling score.
        """
        tensor, placement = self.input_spec.prepare(image)
        found = self.run({"images": np.repeat(tensor[None], self.batch_size, axis=0)})
        return photo_rows(found["boxes"][0], found["scores"][0], self.options, placement)


def photo_rows(
    boxes: np.ndarray, scores: np.ndarray, options: NMSOptions, placement: Placement
) -> np.ndarray:
    """What a network found in one picture, in pixels of the photo.

    Shape: (A, 4), (A, K) -> (N, 6) x1, y1, x2, y2, score, class; falling score.
    """
    return detections_to_photo(nms(boxes, scores, options), placement, clip=True)


def find_pictures(places: Sequence[Path], save_dir: Path) -> tuple[list[Output], Path]:
    """The pictures that ``places`` mean, each with the name of its copy, and the folder for the
    copies: ``save_dir``, or save_dir2 ... if it holds such copies already.

    Raises: FileNotFoundError for none.
    """
    found = [output for output in name_outputs(find_sources(places)) if not output.is_video]
    if not found:
        raise FileNotFoundError(f"{', '.join(map(str, places))}: no picture there, only videos")
    return found, claim_folder(save_dir, found, must_be_new=False)


def read_pictures(outputs: Sequence[Output]) -> Iterator[tuple[Output, np.ndarray]]:
    """Each picture that can be read; the others are named on standard error.

    Raises: ValueError if there is none.
    """
    left_out = 0
    for output in outputs:
        try:
            image = read_image(output.path)
        except (ValueError, OSError) as error:
            left_out += 1
            print(f"left out: {error}", file=sys.stderr)
        else:
            yield output, image
    if left_out == len(outputs):
        raise ValueError(f"none of {left_out} pictures could be read")


def show(
    image: np.ndarray, found: np.ndarray, class_names: Sequence[str], target: Path, note: str
) -> None:
    """Write the picture with its boxes to ``target`` and print them; ``note`` tells more about
    them.
    """
    write_image(target, draw_detections(image, found, class_names))
    print(f"{note} -> {shown(str(target), 300)}")
    for *box, score, label in found:
        print(f"  {class_names[int(label)]} {score:.3f} at {', '.join(f'{v:.0f}' for v in box)}")


def main() -> None:
    """Annotate pictures into a folder and print the boxes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE_OR_FOLDER")
    parser.add_argument("--save_dir", type=Path, default=Path("runs/onnx"))
    parser.add_argument("--conf_thres", type=float, default=0.3)
    parser.add_argument("--iou_thres", type=float, default=0.45)
    options = parser.parse_args()
    try:
        detector = OnnxDetector(
            options.model, conf_thres=options.conf_thres, iou_thres=options.iou_thres
        )
        outputs, folder = find_pictures(options.pictures, options.save_dir)
        for output, image in read_pictures(outputs):
            begin = time.perf_counter()
            found = detector.predict(image)
            spent = (time.perf_counter() - begin) * 1e3
            show(
                image,
                found,
                detector.class_names,
                folder / output.target,
                f"{shown(str(output.path), 300)}: {len(found)} boxes, {spent:.1f} ms",
            )
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
