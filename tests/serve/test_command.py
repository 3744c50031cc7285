"""The command `mindyolo-ext serve`: a real network in a separate process, and its messages."""

import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Command
from launching import ROOT, environment

from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.checkpoint.store import save_checkpoint
from mindyolo_ext.models.registry import create_model

SERVING = "fastapi", "uvicorn", "python_multipart", "prometheus_client"


@pytest.mark.usefixtures("quiet_logging")
def test_what_is_missing_is_named(command: Command, monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec
    missing = {"fastapi", "prometheus_client"}
    found = lambda name: None if name in missing else there(name) or True  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    status, output = command("serve", "--weight", "a.ckpt")
    assert status == 1
    assert "serve: requires fastapi, prometheus-client: pip install 'mindyolo_ext[serve]'" in output


@pytest.mark.usefixtures("quiet_logging")
def test_a_taken_port_is_told_before_the_network_is_built(command: Command):
    for name in SERVING:
        pytest.importorskip(name)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output = command("serve", "--weight", "nowhere.ckpt", "--port", port)
    assert status == 1 and f"serve: cannot open port {port} on 127.0.0.1" in output
    assert command("serve", "--weight", "nowhere.ckpt", "--port", 70000)[0] == 1
    status, output = command("serve", "--weight", "nowhere.ckpt", "--port", 0)
    assert status == 1 and "nowhere.ckpt" in output


@pytest.mark.usefixtures("quiet_logging")
def test_the_runtime_is_that_of_the_detector(command: Command, tmp_path: Path):
    for name in SERVING:
        pytest.importorskip(name)
    (tmp_path / "a.onnx").write_bytes(b"")
    arguments = ("serve", "--weight", tmp_path / "a.onnx", "--runtime", "ncnn", "--port", 0)
    status, output = command(*arguments)
    assert status == 1 and "ncnn" in output and ".param" in output


@pytest.mark.needs_torch  # nothing is compiled, so it takes seconds
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to be caught")
def test_a_real_network_answers_like_its_detector(tmp_path: Path):
    for name in SERVING:
        pytest.importorskip(name)
    import cv2

    from mindyolo_ext import Detector

    model = create_model("yolo_fastestv2", num_classes=2)
    weight, spec = tmp_path / "small.ckpt", model.input_spec
    metadata = CheckpointMetadata("yolo_fastestv2", 2, ["cat", "dog"], spec)
    save_checkpoint(weight, parameter_values(model), metadata)
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "mindyolo_ext.cli", "serve", "--weight", weight, "--port", "0"],
        env={**environment(), "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        greeting = next(line for line in lines if "http://" in line)
        port = int(re.search(r"2 classes: http://127\.0\.0\.1:(\d+) \(this machine", greeting)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = cv2.imencode(".png", image)[1].tobytes()
        connection.request("POST", "/predict?conf=0.001", body)
        answer = connection.getresponse()
        text = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        assert process.wait(60) == 0 and output.endswith("stopped\n"), output
    finally:
        process.kill()
    wanted = Detector(weight, device_target="CPU", conf_thres=0.001).predict(image).to_list()
    assert answer.status == 200 and json.loads(text)["detections"] == wanted != []
