"""The answers of the server: boxes, pictures, metrics, and reasons for errors."""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
from web_server import NAMES, Running, StandIn, form, photo, running

from mindyolo_ext.errors import UsageError
from mindyolo_ext.serve.app import accepted, page_policy
from mindyolo_ext.serve.limits import Limits
from mindyolo_ext.serve.refusal import Refusal
from mindyolo_ext.serve.service import Service


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(limits=Limits(body_mib=0.5, megapixels=1)) as found:
        yield found


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service(StandIn(), Limits())
    yield found
    found.close()


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_json_holds_the_rows_of_the_detector(server: Running):
    answer = server.ask(body=photo())
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = server.detector.predict(pixels(photo()))
    got = answer.json()
    assert got["detections"] == found.to_list() and len(found) == 3
    assert got["image"] == {"width": 40, "height": 24} and got["model"] == "stand_in"
    assert set(got["seconds"]) == {"waiting", "decoding", "network"}


def test_a_form_is_as_good_as_the_bytes(server: Running):
    body, headers = form(photo())
    by_form = server.ask(body=body, headers=headers)
    assert by_form.status == 200
    assert by_form.json()["detections"] == server.ask(body=photo()).json()["detections"]
    assert np.array_equal(server.detector.calls[-1][2], pixels(photo()))


def test_thresholds_are_the_clients_and_last_for_one_image(server: Running):
    asked = server.ask("/predict?conf=0.5&iou=0.7", photo()).json()
    assert [row["score"] for row in asked["detections"]] == [0.9, 0.6]
    assert server.detector.calls[-1][1].iou_thres == 0.7
    server.ask(body=photo())
    assert (server.detector.options.conf_thres, server.detector.calls[-1][1].iou_thres) == (
        0.3,
        0.45,
    )


@pytest.mark.parametrize(
    "query", ["classes=0&classes=2", "classes=cat,2", "classes=cat&classes=traffic%20light"]
)
def test_classes_by_name_and_number(server: Running, query: str):
    rows = server.ask(f"/predict?{query}&conf=0.1", photo()).json()["detections"]
    assert [row["class"] for row in rows] == [0, 2, 0]


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", "image/png", "image/png"),
        ("", "image/jpeg;q=0.4, image/png;q=0.9", "image/png"),
        ("?format=jpg", "application/json", "image/jpeg"),
    ],
)
def test_a_picture_is_drawn_for_who_asks(server: Running, query: str, accept: str, kind: str):
    answer = server.ask(f"/predict{query}", photo(), headers={"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    drawn = server.detector.predict(pixels(photo())).plot()
    assert pixels(answer.body).shape == drawn.shape
    if kind == "image/png":
        assert np.array_equal(pixels(answer.body), drawn)


def test_accept_by_weight():
    assert accepted("*/*") == accepted("text/html, application/json") == "json"
    assert accepted("image/*") == "jpg"
    assert accepted("application/json;q=0, image/png;q=0.1") == "png"
    with pytest.raises(Refusal, match="wanted Accept with one of .*image/png, got text/csv"):
        accepted("text/csv")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/predict?conf=1.5", b"x", {}, 422, "conf: wanted minimum score .* in 0..1, got 1.5"),
        ("/predict?conf=nan", b"x", {}, 422, "conf: wanted .* got nan"),
        ("/predict?confs=1", b"x", {}, 422, "unknown parameter confs, did you mean conf"),
        ("/predict?format=gif", b"x", {}, 422, "format: wanted json, jpg or png.* got gif"),
        ("/predict?classes=dgo", photo(), {}, 422, "classes: .* 3 classes, got dgo, did you mean"),
        ("/predict?classes=3", photo(), {}, 422, "classes: .* got 3"),
        ("/predict", b"", {}, 400, "wanted the bytes of an image, got none; curl"),
        ("/predict", b"hello", {}, 422, "image: wanted a readable image .* got 5 bytes"),
        ("/predict", photo()[:500], {}, 422, "a PNG truncated after 500 bytes"),
        ("/predict", b"{}", {"Content-Type": "application/json"}, 415, "got application/json"),
        ("/predict", b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        ("/predict", photo(), {"Accept": "text/csv"}, 406, "wanted Accept with one of"),
        ("/predict", None, {}, 405, "GET /predict: Method Not Allowed"),
        ("/nix", None, {}, 404, "addresses: /, /predict, /health"),
    ],
)
def test_a_refusal_says_what_came_and_what_is_wanted(
    server: Running, path: str, body: bytes | None, headers: dict, status: int, message: str
):
    answer = server.ask(path, body, headers=headers)
    assert answer.status == status
    assert re.search(message, answer.json()["error"]), answer.body


def test_parameters_do_not_hide_in_a_form(server: Running):
    body, headers = form(b"0.4", name="conf", file="")
    answer = server.ask(body=body, headers=headers)
    assert answer.status == 400 and "/predict?conf=0.4" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused_and_not_reset(server: Running):
    body = bytes(32 << 20)  # larger than the buffers of a connection
    announced = server.ask(body=body)
    in_chunks = server.ask(body=iter([body]))
    in_a_form = server.ask(body=iter([form(body)[0]]), headers=form(b"")[1])
    for answer in (announced, in_chunks, in_a_form):
        assert answer.status == 413
        assert "wanted at most 524288 bytes, got" in answer.json()["error"]


def test_an_image_of_too_many_pixels_is_not_decoded(
    server: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mindyolo_ext.serve.service.decode_image", lambda *_: 1 / 0)
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b""))
    )
    answer = server.ask(body=bomb)
    assert answer.status == 413
    assert "wanted at most 1000000 pixels, got 60000x60000" in answer.json()["error"]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("secret"), 500), (MemoryError(), 503)])
def test_the_server_goes_on_after_a_fault(server: Running, error: BaseException, status: int):
    server.detector.fails = [error]
    answer = server.ask(body=photo())
    server.detector.fails = []
    assert answer.status == status and "secret" not in answer.json()["error"]
    assert server.ask(body=photo()).status == 200


def test_the_network_runs_in_one_thread(server: Running):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask(body=photo()), range(24)))
    assert {answer.status for answer in answers} == {200}
    assert len({call[0] for call in server.detector.calls[-24:]}) == 1


def test_numbers_for_prometheus():
    with running() as fresh:
        for body in (photo(), photo(), b"x"):
            fresh.ask("/predict?classes=dog", body)
        fresh.ask("/nowhere/1")
        answer = fresh.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    for line in (
        'mindyolo_ext_requests_total{path="/predict",status="200"} 2.0',
        'mindyolo_ext_requests_total{path="/predict",status="422"} 1.0',
        'mindyolo_ext_requests_total{path="other",status="404"} 1.0',
        'mindyolo_ext_boxes_total{name="dog"} 2.0',
        'mindyolo_ext_seconds_count{part="network"} 2.0',
        "mindyolo_ext_queue 0.0",
    ):
        assert line in lines


def test_the_server_tells_what_it_is(server: Running):
    assert server.ask("/health").json()["status"] == "ok"
    model = server.ask("/model").json()
    assert model["classes"] == list(NAMES) and model["input"] == [32, 64]
    assert (model["conf"], model["max_body"], model["max_pixels"]) == (0.3, 524288, 1_000_000)
    described = server.ask("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {one["name"] for one in described["parameters"]} == {"conf", "iou", "classes", "format"}


def test_the_page_fetches_from_its_own_server_only(server: Running):
    answer = server.ask("/")
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.search(r"https?://|src=|@import", page)
    policy = answer.headers["content-security-policy"]
    assert policy == page_policy(page) and "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2 and "unsafe" not in policy


def test_a_server_for_this_machine_answers_under_its_names_only():
    with running(hosts=("127.0.0.1", "::1")) as local:
        assert local.ask("/health").status == 200
        assert local.ask("/health", headers={"Host": "[::1]:8000"}).status == 200
        for name in ("evil.example:80", "[", ""):
            answer = local.ask(body=photo(), headers={"Host": name})
            assert answer.status == 421, name
            assert "Host: wanted one of 127.0.0.1, ::1, got" in answer.json()["error"]
        assert not local.detector.calls


def test_names_with_commas_are_classes_too(service: Service):
    service.detector.class_names = ("cup, mug", "cup", "mug")
    assert service.class_indices(["cup, mug"]) == (0,)
    assert service.class_indices(["mug,cup"]) == (1, 2)
    assert service.class_indices([]) == service.class_indices([""]) == ()


def test_limits_are_positive():
    with pytest.raises(UsageError, match="wanted a positive number for queue, got 0"):
        Limits(queue=0)
    with pytest.raises(UsageError, match="answer_seconds, got nan"):
        Limits(answer_seconds=float("nan"))


def test_answers_are_json_without_numbers_that_json_lacks(server: Running):
    json.loads(server.ask(body=photo()).body, parse_constant=lambda name: pytest.fail(name))
