"""Plots: they are drawn from incomplete files too; the numbers behind the F1 curve."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.confidence import curves
from mindyolo_ext.visual.curves import (
    plot_f1_curves,
    plot_pr_curves,
    plot_results,
)

HEADER = "epoch,loss,finite,loss_scale,box,class,lr,seconds,AP,AP50,own_AP50"
ROWS = (
    "0,3.5,1,1,1.5,2,0.01,9,,,",
    "1,nan,1,1,inf,1,0.02,9,0.1,0.2,0.3",
    "2,1.5,1,1,0.5,1,0.03,9,0.2,0.3,0.4",
)


def evaluation(classes=2):
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes + 1)],
        "annotations": [
            {"image_id": 1, "category_id": k, "bbox": [100 * n, 0, 50, 50]}
            for k in range(classes)
            for n in range(2)
        ],
    }
    found = [
        {"image_id": 1, "category_id": k, "bbox": [x, 0, 50, 50], "score": score}
        for k in range(classes)
        for x, score in ((0, 0.8), (300, 0.5), (100, 0.3))
    ]
    return evaluate_coco(truth, found)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved during the test."""
    figures, save = [], Figure.savefig

    def keep(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def lines_of(figure):
    return [
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        for axes in figure.axes
    ]


def test_the_curves_of_a_run(tmp_path, drawn):
    (tmp_path / "results.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    assert cv2.imread(str(tmp_path / "results.png")).shape[:2] > (500, 800)
    loss, terms, rate, accuracy = lines_of(drawn[0])
    assert loss == {"loss": [[1, 3.5], [3, 1.5]]}  # a loss that is not a number is left out
    assert terms == {"box": [[1, 1.5], [3, 0.5]], "class": [[1, 2], [2, 1], [3, 1]]}
    assert rate == {"lr": [[1, 0.01], [2, 0.02], [3, 0.03]]}
    assert set(accuracy) == {"AP", "AP50", "own AP50"} and accuracy["AP"] == [[2, 10], [3, 20]]
    ticks = [axes.get_xticks().tolist() for axes in drawn[0].axes]
    assert all(ticks[0] == its and all(t == int(t) for t in its) for its in ticks)


def test_losses_on_other_images_are_drawn_beside_their_own(tmp_path, drawn):
    (tmp_path / "results.csv").write_text(
        "epoch,loss,box,lr,val_loss,val_box\n0,3,1,0.1,4,2\n1,2,1,0.1,,\n"
    )
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    loss, terms, _, _ = lines_of(drawn[0])
    assert loss == {"loss": [[1, 3], [2, 2]], "val_loss": [[1, 4]]}
    assert terms == {"box": [[1, 1], [2, 1]], "val_box": [[1, 2]]}


def test_metrics_of_voc_are_accuracies(tmp_path, drawn):
    (tmp_path / "results.csv").write_text(
        "epoch,loss,box,lr,voc07_AP50,voc_AP50\n0,3,1,0.1,0.25,0.5\n1,2,1,0.1,nan,nan\n"
    )
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    _, terms, _, accuracy = lines_of(drawn[0])
    assert set(terms) == {"box"} and accuracy == {"voc07_AP50": [[1, 25]], "voc_AP50": [[1, 50]]}


@pytest.mark.parametrize(
    "text", ["epoch,loss,lr\n0,1,0\n", "epoch,loss,AP\n0,nan,\n", f"{HEADER}\n{ROWS[0]}\n"]
)
def test_a_run_that_has_just_begun(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(FileNotFoundError):
        plot_results(path, tmp_path / "x.png")
    for text, message in (
        ("", "wanted a column epoch"),
        ("epoch,loss\n", "0 rows"),
        ("a,b\n1,2\n", "column epoch"),
        ("epoch,loss\n0,much\n", "wanted numbers, got 'much'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            plot_results(path, tmp_path / "x.png")


def test_f1_by_hand():
    result = evaluation()
    thresholds = np.array([0.0, 0.3, 0.5, 0.79, 0.8, 1.0])
    objects = result.per_class[0].num_ground_truth
    got = curves(result.scores50[0], result.hits50[0], objects, thresholds)[2]
    # 2 labels: all three detections, two of them right; two, one right; one, right; one; none; none
    np.testing.assert_allclose(got, [4 / 5, 2 / 4, 2 / 3, 2 / 3, 0, 0])


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_curves_of_an_evaluation(tmp_path, drawn, classes):
    result = evaluation(classes)
    plot_pr_curves(result, tmp_path / "pr.png")
    plot_f1_curves(result, tmp_path / "f1.png")
    for name, figure in zip(("pr.png", "f1.png"), drawn):
        assert cv2.imread(str(tmp_path / name)) is not None
        # no line for the missing class
        assert len(figure.axes[0].lines) == classes + 1 + (name == "f1.png")
    mean = drawn[0].axes[0].lines[-1].get_ydata()
    assert mean[0] == pytest.approx(1) and mean[-1] == pytest.approx(2 / 3)
    assert f"AP50 {100 * result.ap50:.1f} %" in drawn[0].axes[0].get_title()
    assert "0.80 at confidence 0.00" in drawn[1].axes[0].get_title()


def test_no_ground_truth_is_refused(tmp_path):
    empty = evaluate_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1, "name": "x"}], "annotations": []}, []
    )
    for plot in (plot_pr_curves, plot_f1_curves):
        with pytest.raises(ValueError, match="no box"):
            plot(empty, tmp_path / "x.png")


def test_no_display_and_no_framework_is_needed():
    code = (
        "import sys, mindyolo_ext.visual.curves, mindyolo_ext.visual.detections, "
        "mindyolo_ext.evaluation.nms; assert not {'mindspore', 'torch', 'matplotlib.pyplot'} & "
        "set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_epochs_are_whole_numbers_from_1(tmp_path, drawn, epochs):
    rows = "".join(f"{epoch},3,1,0.1\n" for epoch in range(epochs))
    (tmp_path / "results.csv").write_text("epoch,loss,box,lr\n" + rows)
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    low, high = drawn[0].axes[0].get_xlim()
    ticks = [tick for tick in drawn[0].axes[3].get_xticks() if low <= tick <= high]
    assert ticks and all(tick == int(tick) for tick in ticks)
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == list(range(1, epochs + 1))
