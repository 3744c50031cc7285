"""Yolo-FastestV2's network against arrays of the original program; tolerances are in
tests/golden/README.md.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import load_weights, original_name
from networks import Everything, number_of, outputs_of

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.models.registry import create_model

FAMILY = "yolo_fastestv2"
GRAPH_VARIANTS = ("yolo_fastestv2",)
pytestmark = pytest.mark.graph(when="smallest")
HEADS = ("reg_s16", "obj_s16", "cls_s16", "reg_s32", "obj_s32", "cls_s32")


@pytest.fixture(scope="module")
def outputs(golden_case):
    """All outputs of the seeded network on the case's images, with the case's arrays."""
    arrays = golden_case.arrays()
    batch, _, height, width = arrays["eval_reg_s16"].shape
    model = create_model("yolo_fastestv2", arrays["eval_cls_s16"].shape[1])
    load_weights(model, golden_case.weights())
    found = outputs_of(Everything(model), golden_case.images(batch, 16 * height, 16 * width))
    return {**found, "heads": dict(zip(HEADS, found["heads"], strict=True)), "arrays": arrays}


@pytest.mark.parametrize("head", HEADS)
def test_raw_heads_equal_the_original(outputs, head):
    np.testing.assert_allclose(
        outputs["heads"][head], outputs["arrays"][f"eval_{head}"], rtol=0, atol=1e-4
    )


def test_decoded_rows_equal_the_original(outputs):
    arrays, decoded = outputs["arrays"], outputs["decoded"]
    wanted = arrays["eval_decoded"] if "eval_decoded" in arrays else arrays["eval_decoded_box_obj"]
    assert decoded.shape[:2] == wanted.shape[:2]
    np.testing.assert_allclose(decoded[:, :, :4], wanted[:, :, :4], rtol=0, atol=0.01)
    np.testing.assert_allclose(
        decoded[:, :, 4 : wanted.shape[2]], wanted[:, :, 4:], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("level", ["deploy_s16", "deploy_s32"])
def test_deploy_form_equals_the_original(outputs, level):
    if level not in outputs["arrays"]:
        pytest.skip("the case has no deploy arrays")
    got = outputs["deploy"][("deploy_s16", "deploy_s32").index(level)]
    np.testing.assert_allclose(got, outputs["arrays"][level], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["predicted", "deploy_predicted"])
def test_predict_gives_corners_and_products(outputs, form):
    boxes, scores = outputs[form]
    decoded = outputs["decoded"]
    centers, halves = decoded[:, :, :2], decoded[:, :, 2:4] / 2
    np.testing.assert_allclose(
        boxes, np.concatenate((centers - halves, centers + halves), 2), rtol=0, atol=0.01
    )
    np.testing.assert_allclose(scores, decoded[:, :, 4:5] * decoded[:, :, 5:], rtol=0, atol=1e-5)


def test_the_default_cases_hold_what_the_tests_read(golden_case):
    """If a case of the default folder lost an array, its tests would only be skipped."""
    if not golden_case.default:
        pytest.skip("only the default folder must be complete")
    arrays = set(golden_case.arrays())
    small = "352" not in str(golden_case)
    assert arrays >= {f"eval_{head}" for head in HEADS} | {
        "grad_l2",
        "evalgrad_l2",
        "traj_loss",
        "loss_total",
    }
    assert ("eval_decoded" if small else "eval_decoded_box_obj") in arrays
    assert not small or arrays >= {
        "deploy_s16",
        "deploy_s32",
        "train_reg_s16",
        "bn_running_mean_first",
    }


def test_parameter_names_follow_the_original(golden_case):
    keys = json.loads((golden_case.variant_folder / "keys.json").read_text())
    wanted = {
        name: tuple(shape) for name, shape, _ in keys if not name.endswith("num_batches_tracked")
    }
    model = create_model("yolo_fastestv2")
    assert {
        original_name(name): tuple(p.shape) for name, p in model.parameters_and_names()
    } == wanted
    assert all(name == p.name for name, p in model.parameters_and_names())


def test_deploy_form_has_the_published_parameter_count(golden_case):
    meta = json.loads((golden_case.variant_folder / "meta.json").read_text())
    deploy = create_model("yolo_fastestv2").to_deploy()
    assert number_of(deploy.get_parameters()) == meta["params_deploy"] == 238_847
    assert not any(isinstance(cell, nn.BatchNorm2d) for _, cell in deploy.cells_and_names())


def photo(name: str, golden_root: Path, shared: Path) -> Path:
    """The path of the image: in or beside the folder of cases, or with the published weights."""
    places = [
        golden_root / "images",
        golden_root / "yolo_fastestv2" / "images",
        golden_root.parent / "images",
        shared / "images",
    ]
    for place in places:
        if (place / name).is_file():
            return place / name
    return pytest.skip(f"no photo {name} in {', '.join(map(str, places))}")


@pytest.fixture(scope="module")
def published(shared):
    """The network with the published COCO weights."""
    from mindyolo_ext.checkpoint.reader import read_checkpoint

    weights = shared / "weights" / "yolo_fastestv2" / "coco2017-0.241078ap-model.pth"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    model = create_model("yolo_fastestv2")
    load_weights(model, read_checkpoint(weights).tensors)
    return model.set_train(False)


@pytest.fixture(scope="module")
def photos(published, golden, shared):
    """Stem -> (network input (3, H, W), placement, resized image) of the photos of
    ``real_weights.npz``.
    """
    found = {}
    for name in golden.arrays("yolo_fastestv2/real_weights.npz")["images"]:
        resized, placement = published.input_spec.resize_image(
            cv2.imread(str(photo(str(name), golden.root, shared)))
        )
        found[str(name).rsplit(".", 1)[0]] = (
            published.input_spec.to_tensor(resized),
            placement,
            resized,
        )
    return found


def test_published_weights_on_photos(published, photos, golden):
    arrays = golden.arrays("yolo_fastestv2/real_weights.npz")
    for stem, (_, placement, resized) in photos.items():
        sums = resized.reshape(-1, 3).astype(np.int64).sum(0)
        np.testing.assert_array_equal(
            sums, arrays[f"{stem}_input_sum"], err_msg="decoder or resize differs"
        )
        np.testing.assert_array_equal(resized[::16, ::16], arrays[f"{stem}_input_sample"])
        np.testing.assert_array_equal((placement.height, placement.width), arrays[f"{stem}_size"])
    heads = published(Tensor(np.stack([tensor for tensor, _, _ in photos.values()])))
    for head, got in zip(HEADS, heads, strict=True):
        got = got.asnumpy()
        np.testing.assert_allclose(got, arrays[f"raw_{head}"], rtol=0, atol=1e-3, err_msg=head)
        flat = got.reshape(*got.shape[:2], -1)
        summary = np.stack([flat.mean(2), flat.std(2), flat.min(2), flat.max(2)], 2)
        np.testing.assert_allclose(
            summary, arrays[f"summary_{head}"], rtol=0, atol=1e-3, err_msg=head
        )
    decoded = published.decode(heads).asnumpy()[..., :6].astype(np.float64).sum(1)
    for stem, row in zip(photos, decoded, strict=True):
        # a sum of 1815 rows: 1815 x the 0.01 px and 1e-5 of a row at most
        np.testing.assert_allclose(row[:4], arrays[f"{stem}_decoded_sum"][:4], rtol=0, atol=18)
        np.testing.assert_allclose(row[4:], arrays[f"{stem}_decoded_sum"][4:], rtol=0, atol=0.018)


def test_boxes_drawn_on_photos(published, photos, golden):
    """The original scales the boxes of confidence 0.3 to the photo and truncates them to whole
    pixels.
    """
    from mindyolo_ext.evaluation.collect import detections_to_photo
    from mindyolo_ext.evaluation.nms import NMSOptions, nms

    arrays = golden.arrays("yolo_fastestv2/real_weights.npz")
    boxes, scores = published.predict(
        Tensor(np.stack([tensor for tensor, _, _ in photos.values()]))
    )
    for k, (stem, (_, placement, _)) in enumerate(photos.items()):
        found = nms(
            boxes[k].asnumpy(), scores[k].asnumpy(), NMSOptions(conf_thres=0.3, iou_thres=0.4)
        )
        drawn = detections_to_photo(found, placement, clip=False)[:, :4]
        assert len(drawn) == len(arrays[f"{stem}_drawn_int_boxes"]) > 0
        # truncation turns a difference of 0.1 px into a whole pixel
        np.testing.assert_allclose(
            np.trunc(drawn), arrays[f"{stem}_drawn_int_boxes"], rtol=0, atol=1
        )


def test_deploy_form_agrees_with_the_published_ncnn_model(published, photos, golden):
    """The same training in half precision: up to 0.02 apart, as measured with the original."""
    arrays = golden.arrays("yolo_fastestv2/real_weights_ncnn.npz")
    outputs = published.to_deploy()(Tensor(np.stack([tensor for tensor, _, _ in photos.values()])))
    fine, coarse = (output.asnumpy() for output in outputs)
    for k, stem in enumerate(photos):
        np.testing.assert_allclose(
            coarse[k], arrays[f"{stem}_out_same_input_s32"], rtol=0, atol=0.02
        )
        np.testing.assert_allclose(
            fine[k, ::3, ::3], arrays[f"{stem}_out_same_input_s16_sub"], rtol=0, atol=0.02
        )


def test_detections_agree_with_the_published_ncnn_model(published, photos, golden):
    """Every box of its C++ sample (score 0.3, IoU 0.25, whole pixels) has a box of ours on it, and
    the other way round.

    Half precision may let a neighboring cell with a nearly equal score win, so boxes are compared
    by overlap.
    """
    from mindyolo_ext.evaluation.collect import detections_to_photo
    from mindyolo_ext.evaluation.nms import NMSOptions, nms

    arrays = golden.arrays("yolo_fastestv2/real_weights_ncnn.npz")
    boxes, scores = published.predict(
        Tensor(np.stack([tensor for tensor, _, _ in photos.values()]))
    )
    for k, (stem, (_, placement, _)) in enumerate(photos.items()):
        found = nms(
            boxes[k].asnumpy(), scores[k].asnumpy(), NMSOptions(conf_thres=0.3, iou_thres=0.25)
        )
        found, theirs = (
            detections_to_photo(found, placement, clip=False),
            arrays[f"{stem}_ncnn_dets"],
        )
        assert sorted(found[:, 5]) == sorted(theirs[:, 5]), stem
        for row in theirs:
            corner, end = np.maximum(found[:, :2], row[:2]), np.minimum(found[:, 2:4], row[2:4])
            shared_area = np.clip(end - corner, 0, None).prod(1) * (found[:, 5] == row[5])
            areas = (found[:, 2:4] - found[:, :2]).prod(1) + (row[2:4] - row[:2]).prod()
            overlap = shared_area / (areas - shared_area)
            assert overlap.max() > 0.6 and abs(found[overlap.argmax(), 4] - row[4]) < 0.03, (
                stem,
                row,
                found,
            )


def test_initial_weights_are_pytorchs_and_follow_the_seed():
    set_seed(3)
    first = create_model("yolo_fastestv2")
    set_seed(3)
    again = create_model("yolo_fastestv2")
    other = create_model("yolo_fastestv2")
    cells = dict(first.cells_and_names())
    for name, cell in cells.items():
        if isinstance(cell, nn.Conv2d):
            weight, fan_in = cell.weight.asnumpy(), np.prod(cell.weight.shape[1:])
            bound = 1 / np.sqrt(fan_in)
            assert 0.9 * bound < np.abs(weight).max() <= bound * (1 + 1e-6), name
            assert abs(weight.std() - bound / np.sqrt(3)) < 0.2 * bound, name
            if cell.has_bias:
                assert 0.3 * bound < np.abs(cell.bias.asnumpy()).max() <= bound * (1 + 1e-6), name
    name = "backbone.first_conv.0"
    np.testing.assert_array_equal(
        cells[name].weight.asnumpy(), dict(again.cells_and_names())[name].weight.asnumpy()
    )
    assert (
        cells[name].weight.asnumpy() != dict(other.cells_and_names())[name].weight.asnumpy()
    ).any()


def test_architecture_rebuilds_the_model():
    anchors = [[8, 9], [20, 21], [40, 41], [80, 81]]
    model = create_model("yolo_fastestv2", num_classes=2, anchors=anchors, input_size=(64, 96))
    twin = create_model(
        "yolo_fastestv2", num_classes=2, **json.loads(json.dumps(model.architecture))
    )
    assert twin.anchors == model.anchors == tuple(map(tuple, anchors))
    assert [p.shape for p in twin.get_parameters()] == [p.shape for p in model.get_parameters()]
    boxes, scores = model.to_deploy().predict(Tensor(np.zeros((1, 3, 64, 96), np.float32)))
    assert boxes.shape == (1, 2 * (4 * 6 + 2 * 3), 4) and scores.shape == (1, 60, 2)


@pytest.mark.parametrize("anchors", [[], [[1, 2]], [[1, 2], [3, -4]], [[1, 2, 3], [4, 5, 6]]])
def test_bad_anchors_are_refused(anchors):
    with pytest.raises(ValueError, match="yolo_fastestv2: anchors"):
        create_model("yolo_fastestv2", anchors=anchors)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        create_model("yolo_fastestv2", num_classes=0)
