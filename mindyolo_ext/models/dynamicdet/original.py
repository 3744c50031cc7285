"""Build the original DynamicDet for ``verify``; runs in the user's own PyTorch, inside the user's
clone.
"""

import ast
import re
import sys
from pathlib import Path

from stand_ins import StandIn, replace_missing

# Packages that the clone imports but its network does not use, with the submodules it names.
UNUSED = {
    "cv2": (),
    "matplotlib": ("pyplot",),
    "pandas": (),
    "scipy": ("cluster", "cluster.vq"),
    "thop": (),
    "torchvision": (),
    "tqdm": (),
}
CONFIGS = {
    "dy_yolov7": "dy-yolov7",
    "dy_yolov7x": "dy-yolov7x",
    "dy_yolov7_w6": "dy-yolov7-w6",
    "dy_yolov7_w0125": "dy-yolov7",
}
NARROW = {"dy_yolov7_w0125": 8}  # divisor of the channels in the config
EXITS = ("easy", "hard")


def build(settings):
    """Build the original's network without weights; ``settings`` holds model, num_classes and
    architecture (router).
    """
    replace_missing(UNUSED)
    step = 2 if settings["architecture"]["router"] else 1
    path = Path("cfg", f"{CONFIGS[settings['model']]}-step{step}.yaml")
    config = network_config(settings["model"], path)
    sys.modules["yaml"] = StandIn("yaml")
    sys.modules["yaml"].load = lambda *_, **__: config
    from models.yolo import Model

    model = Model(str(path), nc=settings["num_classes"])
    whole = model.forward

    def both_exits(images):
        """Run every part once, as training does, with layers in evaluation mode."""
        model.training = True  # for the network only, not its layers
        result = whole(images)
        model.training = False
        return result

    model.forward = both_exits
    return model


def network_config(model, path):
    """Read the clone's config ``path`` for our ``model``, which may have fewer channels."""
    return _narrowed(_read_config(path), NARROW.get(model, 1))


def outputs(result):
    """Return boxes cxcywh and probabilities of both exits, and the router's score if there is
    one.
    """
    exits, score = result if isinstance(result, tuple) else (result, None)
    named = {} if score is None else {"score": score}
    for name, decoded in zip(EXITS, exits[::2]):  # each head returns its rows, then its levels
        named[f"{name}_boxes"], named[f"{name}_probabilities"] = decoded[..., :4], decoded[..., 4:]
    return named


def _read_config(path):
    """Read one of the clone's network configs, whose simple syntax does not need PyYAML."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    config = {}
    for key, body in re.findall(r"^(\w+):(.*?)(?=^\w+:|\Z)", text, re.MULTILINE | re.DOTALL):
        body = body.strip()
        if body.startswith("-"):  # one list per line
            body = "[" + ",".join(line.strip().lstrip("-") for line in body.splitlines()) + "]"
        config[key] = ast.literal_eval(re.sub(r"'?\b([A-Za-z_][\w.]*)\b'?", _quoted, body))
    return config


def _quoted(match):
    """Quote a bare word as Python text; booleans stay."""
    return match.group(1) if match.group(1) in ("True", "False") else repr(match.group(1))


def _narrowed(config, divisor):
    """Return the config of a network with fewer channels, including those that the original does
    not scale.
    """
    if divisor > 1:
        config["width_multiple"] /= divisor
        config["router_channels"] = [
            channels // divisor for channels in config.get("router_channels", [])
        ]
        for _, _, kind, arguments in config["dual_backbone"]:
            if kind == "CBLinear":
                arguments[0] = [channels // divisor for channels in arguments[0]]
    return config
