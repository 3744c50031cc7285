"""YAML: recipes, and the mutations that data.yaml shares with them."""

from random import Random
from typing import Any

import yaml

from ..mutate import Files, mutate_bytes, mutate_tree, odd_text
from .pickles import CANARY

RECIPE: dict[str, Any] = {
    "__BASE__": ["base.yaml"],
    "model": {"name": "yolox_nano", "keywords": {"act": "silu"}},
    "input": {"size": [64, 64], "color": "bgr", "mean": [0.5, 0.5, 0.5]},
    "data": {
        "train": {"format": "yolo", "images": "images", "names": ["cat", "dog"]},
        "augment": [{"name": "yolox_hsv_flip", "max_boxes": 120}, "horizontal_flip"],
        "cache": True,
    },
    "train": {
        "epochs": 3,
        "optimizer": {"name": "sgd", "lr": 1e-3, "groups": "by_kind"},
        "schedule": {"decay": "cosine", "final_ratio": 0.01, "warmup_epochs": 1},
        "stages": [{"from_epoch": -1, "loss": {"l1": True}, "augment": ["hsv"]}],
        "distill": {"teacher": "", "recipe": ""},
        "multi_scale": [64, 96],
    },
    "eval": {"conf_thres": 0.03, "max_detections": 300},
}
BASE = "train: {per_batch_size: 4}\nmodel: {name: yolox_s}\n"
SCALARS = (
    *(f"!!python/object/apply:os.system ['touch {CANARY}']", f"!!python/module:{CANARY}"),
    *("!!python/name:os.system", f"!!python/object/new:{CANARY}.Song []", "!!python/tuple [1, 2]"),
    *("!!binary 'AAAA'", "!!binary '%%'", "!!set {a, b}", "!!timestamp 9999-99-99", "!!x y"),
    *("2001-01-01", "2024-13-45", "0o777", "0x" + "f" * 4000, "1" * 5000, "1_000", "190:20:30"),
    *(
        "&a [*a]",
        "*missing",
        "&a {<<: *a}",
        "{<<: [1, 2]}",
        "{<<: {a: 1}}",
        "{? [a] : b}",
        "!!int x",
    ),
    *(
        "!!float y",
        "!!bool 7",
        "!!null z",
        ".inf",
        ".nan",
        "=",
        "? ",
        "| \n  block",
        "'",
        '"\\x1b"',
    ),
    *(
        '"\\ud800"',
        '"\\0"',
        "\x07",
        "@",
        "`",
        "%",
        "- - - -",
        "[" * 3000,
        "{a: " * 3000,
        "- " * 3000,
    ),
)
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


def written(tree: Any) -> bytes:
    """``tree`` as YAML; repeated objects become aliases."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode(
        "utf-8", "surrogatepass"
    )


def changed_yaml(random: Random, tree: dict[str, Any]) -> bytes:
    """``tree`` mutated as a tree, as text, or both."""
    changed = mutate_tree(random, tree) if random.random() < 0.6 else tree
    if isinstance(changed, dict) and changed and random.random() < 0.1:
        changed = {**changed, random.choice(list(changed)): next(iter(changed.values()))}
    lines = written(changed).decode("utf-8", "surrogatepass").split("\n")
    for _ in range(random.choice((0, 1, 1, 2))):
        row = random.randrange(len(lines))
        key, colon, _value = lines[row].partition(":")
        kind = random.randrange(7)
        if kind < 3 and colon:
            lines[row] = f"{key}: {random.choice(SCALARS)}"
        elif kind == 3:
            lines[row] = random.choice(("\t", " ", "- ", "? ", "")) + lines[row]
        elif kind == 4:
            lines.append(lines[row])
        elif kind == 5:
            lines[row] += odd_text(random)[:400]
        else:
            lines.insert(row, random.choice((LAUGHS, "---", "...", "%YAML 9.9", "<<: *a", "# x")))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutate_bytes(random, content) if random.random() < 0.1 else content


def recipe(random: Random, sound: bool) -> Files:
    """A recipe with its parent."""
    content = written(RECIPE) if sound else changed_yaml(random, RECIPE)
    return {"recipe.yaml": content, "base.yaml": BASE.encode()}
