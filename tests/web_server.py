"""A server of this project in a thread, with a stand-in for the network, and a client."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from mindyolo_ext.engine.predict import Detections
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.serve.app import create_app
from mindyolo_ext.serve.limits import Limits
from mindyolo_ext.serve.run import Server, open_address
from mindyolo_ext.serve.service import Service

NAMES = ("cat", "dog", "traffic light")
SCORES = (0.9, 0.6, 0.35, 0.2)
PATIENCE = 20.0  # seconds until a test gives up


class StandIn:
    """Finds the same boxes in every image, those above ``options.conf_thres``. While ``gate`` is
    closed, it does not return.

    Attributes:
        calls: (thread, options, image) of each image; ``entered`` is released at each.
        batches: sizes of the lists.
        fails: raised instead of an answer, if set.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.batches: list[int] = []
        self.options = NMSOptions(conf_thres=0.3, iou_thres=0.45)
        self.class_names = NAMES
        self.input_spec = SimpleNamespace(size=(32, 64))
        self.metadata = SimpleNamespace(model="stand_in")
        self.calls: list[tuple[int, NMSOptions, np.ndarray]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.fails: list[BaseException] = []

    def predict(self, image: np.ndarray | list[np.ndarray]) -> Detections | list[Detections]:
        """Return four boxes, less those that the options leave out, for each image of a list."""
        if isinstance(image, list):
            self.batches.append(len(image))
            return [self._found(one) for one in image]
        return self._found(image)

    def _found(self, image: np.ndarray) -> Detections:
        self.calls.append((threading.get_ident(), self.options, image))
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.fails:
            raise self.fails[0]
        boxes = np.array([[k, 1, 10 + k, 20] for k in range(4)], np.float32)
        labels, classes = np.array([0, 1, 2, 0]), self.options.classes
        kept = np.array(SCORES) > self.options.conf_thres
        kept &= classes is None or np.isin(labels, classes)
        scores = np.array(SCORES, np.float32)
        return Detections(image, boxes[kept], scores[kept], labels[kept], self.class_names)


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server and its network."""

    server: Server
    service: Service
    port: int
    detector: StandIn

    def ask(
        self,
        path: str = "/predict",
        body: Any = None,
        *,
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a new connection: POST with a body, else GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            verb = method or ("GET" if body is None else "POST")
            connection.request(verb, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())


@contextlib.contextmanager
def running(
    detector: Any = None, limits: Limits | None = None, **keywords: Any
) -> Iterator[Running]:
    """A server that answers inside the block.

    Args:
        detector: a ``StandIn`` if None.
        limits: of the server.
        keywords: for ``create_app``.
    """
    detector, limits = detector or StandIn(), limits or Limits()
    with open_address("127.0.0.1", 0) as opened:
        app = create_app(detector, limits, **keywords)
        server = Server(app, limits)
        listens = threading.Event()
        startup = server.startup

        async def announced(sockets: list | None = None) -> None:
            await startup(sockets)
            listens.set()

        server.startup = announced
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            assert listens.wait(PATIENCE)
            yield Running(server, app.state.service, opened.getsockname()[1], detector)
        finally:
            server.should_exit = True
            if isinstance(detector, StandIn):
                detector.gate.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def photo(height: int = 24, width: int = 40, suffix: str = ".png") -> bytes:
    """An image file."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def form(data: bytes, *, name: str = "image", file: str = "a.png") -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with one file; without ``file``, it is a plain field."""
    of_file = f'; filename="{file}"' if file else ""
    head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'
    body = head.encode() + data + b"\r\n--xyz--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xyz"}
