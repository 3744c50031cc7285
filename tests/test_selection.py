"""The tests that `make test-all` and ``-k <family>`` choose from those collected here."""

from parts import FAMILIES, PARTS, part_of, select


def test_each_test_runs_in_one_process_of_test_all(request):
    items = request.session.items
    selected = [item.nodeid for part in PARTS for item in select(items, part)]
    assert sorted(selected) == sorted(item.nodeid for item in items)


def test_each_stored_case_runs_in_the_process_of_its_folder(request):
    assert {"gold_yolo_l", "gold_yolo_l/distill", "dy_yolov7_w6", "darknet_100"} <= set(PARTS)
    for item in request.session.items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("golden_case")
        if case and case.default:
            assert part_of(item) in (case.variant, f"{case.variant}, {case.path.stem}")


def test_a_family_chooses_the_tests_of_its_folder(request):
    for item in request.session.items:
        if item.path.parent.name in FAMILIES:
            assert item.path.parent.name in item.listextrakeywords()
