"""Which tests `make test-all` and ``-k <family>`` choose, of those that were collected here."""

from parts import FAMILIES, LARGE, PARTS, part_of, select

from mindyolo_ext.models.registry import list_models


def test_each_test_runs_in_one_process_of_test_all(request):
    items = request.session.items
    selected = [item.nodeid for part in PARTS for item in select(items, part)]
    assert sorted(selected) == sorted(item.nodeid for item in items)


def test_large_variants_are_models_and_have_processes_of_their_own(request):
    assert set(LARGE) <= set(list_models())
    for item in request.session.items:
        in_name = [part for part in LARGE if f"[{part}-" in item.name or f"[{part}/" in item.name]
        assert not in_name or part_of(item) == in_name[0]


def test_a_family_chooses_the_tests_of_its_folder(request):
    for item in request.session.items:
        if item.path.parent.name in FAMILIES:
            assert item.path.parent.name in item.listextrakeywords()
