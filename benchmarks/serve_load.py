"""Many clients at once against `mindyolo-ext serve` on this machine: answers, latencies, memory.

python benchmarks/serve_load.py --weight yolox_nano.ckpt --images photos/ --clients 50 --seconds 60

Starts the server on a free port of 127.0.0.1, asks it with one client and then with many, each
sending its next image as soon as it has an answer, and ends it with SIGTERM. Leaves with status 1
if one request was not answered with 200.
"""

import argparse
import http.client
import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

START_SECONDS = 120
WATCHED = ("process_resident_memory_bytes", "process_open_fds")


@dataclass
class Load:
    """The results for one number of clients.

    Args:
        clients: how many asked at the same time.
        seconds: for how long.
        latencies: seconds of each request that was answered.
        answers: count of each status or kind of error.
    """

    clients: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)

    def row(self) -> list[str]:
        """A row of the table."""
        p50, p95, p99, most = 1000 * np.percentile(self.latencies, (50, 95, 99, 100))
        answers = ", ".join(f"{count} x {name}" for name, count in self.answers.items())
        rate = len(self.latencies) / self.seconds
        return [
            f"{self.clients}",
            f"{self.seconds:.0f} s",
            answers,
            f"{rate:.1f}",
            *(f"{value:.0f} ms" for value in (p50, p95, p99, most)),
        ]


def ask(port: int, bodies: Sequence[bytes], load: Load, until: float, first: int) -> None:
    """One client: sends one image after the other on a connection until the time is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in itertools.islice(itertools.cycle(bodies), first, None):
        begin = time.monotonic()
        if begin >= until:
            break
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            load.answers[type(error).__name__] += 1
            connection.close()
            continue
        load.answers[response.status] += 1
        load.latencies.append(time.monotonic() - begin)
    connection.close()


def run_clients(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Let ``clients`` send images for some seconds."""
    load, begin = Load(clients), time.monotonic()
    threads = [
        threading.Thread(target=ask, args=(port, bodies, load, begin + seconds, number))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - begin
    return load


def metrics(port: int) -> str:
    """The server's current metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def parts(port: int) -> str:
    """Mean milliseconds that the server spent on each part of an image."""
    name, text = r'mindyolo_ext_seconds_{}{{part="(\w+)"}} (\S+)', metrics(port)
    sums, counts = (dict(re.findall(name.format(kind), text)) for kind in ("sum", "count"))
    means = {part: 1000 * float(total) / float(counts[part]) for part, total in sums.items()}
    return ", ".join(f"{part} {mean:.1f} ms" for part, mean in means.items())


def watch(port: int, until: threading.Event, rows: list[list[str]]) -> None:
    """Record memory and open files every 10 seconds."""
    begin = time.monotonic()
    while True:
        text = metrics(port)
        found = [re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in WATCHED]
        memory, files = (float(match[1]) if match else float("nan") for match in found)
        rows.append([f"{time.monotonic() - begin:.0f} s", f"{memory / 2**20:.1f}", f"{files:.0f}"])
        if until.wait(10):
            break


def start_server(weight: Path, extra: Sequence[str]) -> tuple[subprocess.Popen, int]:
    """Start the server; returns its process and port as soon as clients can connect."""
    command = ["-m", "mindyolo_ext.cli", "serve", "--weight", str(weight), "--port", "0", *extra]
    process = subprocess.Popen(
        [sys.executable, *command, "--log_level", "INFO"], stdout=subprocess.PIPE, text=True
    )
    ends = time.monotonic() + START_SECONDS
    for line in process.stdout:
        print(line, end="")
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if match:
            threading.Thread(target=process.stdout.read, daemon=True).start()  # keep it flowing
            return process, int(match[1])
        if time.monotonic() > ends:
            break
    process.kill()
    raise SystemExit("the server did not start")


def main() -> int:
    """Run the clients and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of .jpg files")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=1, help="of the server")
    options = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(options.images.glob("*.jpg"))]
    if not bodies:
        parser.error(f"--images {options.images}: no .jpg file in it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    process, port = start_server(options.weight, ["--batch", str(options.batch)])
    memory: list[list[str]] = []
    try:
        loads = [run_clients(port, bodies, 1, min(10.0, options.seconds))]
        end = threading.Event()
        watcher = threading.Thread(target=watch, args=(port, end, memory))
        watcher.start()
        loads.append(run_clients(port, bodies, options.clients, options.seconds))
        time.sleep(1)
        end.set()
        watcher.join()
        means = parts(port)
    finally:
        process.terminate()
        status = process.wait(20)
    columns = ["clients", "time", "answers", "images/s", "median", "95 %", "99 %", "longest"]
    print(tabulate([load.row() for load in loads], columns, tablefmt="github"))
    print()
    print(tabulate(memory, ["after", "RSS, MiB", "open files"], tablefmt="github"))
    print(f"\nmeans of both: {means}")
    print(f"the server ended with {status}")
    return int(any(set(load.answers) != {200} for load in loads) or status != 0)


if __name__ == "__main__":
    sys.exit(main())
