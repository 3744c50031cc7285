"""Build the original simple YOLO for ``verify``; runs in the user's own PyTorch, inside the user's
clone.
"""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
LEVELS = 3


def build(settings):
    """Build the original's network without weights; ``settings`` holds model, num_classes and
    architecture.

    It returns the decoded predictions and the maps of its heads, both from one pass.
    """
    from models.yolo import YOLO

    architecture, backbone = settings["architecture"], settings["model"].rpartition("_")[2]
    if backbone in RESNETS:  # Darknet needs no torchvision
        import torchvision.models

        keep_from_downloading(torchvision.models)
    anchors = architecture["anchors"]
    per_level = len(anchors) // LEVELS
    model = YOLO(
        settings["num_classes"],
        backbone,
        label_assignment_method=architecture["assignment"],
        anchor_boxes=[anchors[i * per_level : (i + 1) * per_level] for i in range(LEVELS)],
        act_type=architecture["act"],
        channel_sparsity=architecture["channel_sparsity"],
    )
    maps = []
    for head in model.det_head.heads:  # decoding may modify their output
        head.register_forward_hook(lambda _module, _arguments, output: maps.append(output.clone()))
    whole = model.forward

    def decoded_and_maps(images):
        maps.clear()
        rows = whole(images, is_training=False)
        return rows, [_by_anchor(output, per_level) for output in maps]

    model.forward = decoded_and_maps
    return model


def keep_from_downloading(package):
    """Make the ResNets of ``torchvision.models`` use random weights, whatever the original
    requests.
    """
    for name in RESNETS:
        vars(package)[name] = _fresh(vars(package)[name])


def _fresh(builder):
    """Wrap ``builder`` to ignore keywords; by default torchvision loads no weights, in old and new
    versions.
    """
    return lambda **_: builder()


def _by_anchor(output, per_level):
    """Reshape a map (B, a * (5 + K), H, W) to (B, a, H, W, 5 + K)."""
    batch, channels, height, width = output.shape
    return output.reshape(batch, per_level, channels // per_level, height, width).permute(
        0, 1, 3, 4, 2
    )


def outputs(result):
    """Return raw maps by level, and boxes cxcywh and probabilities separately, because their
    magnitudes differ.
    """
    rows, maps = result
    named = {f"l{level}": output for level, output in enumerate(maps)}
    return {
        **named,
        "boxes": rows[..., 1:5],
        "probabilities": rows[..., [0, *range(5, rows.shape[-1])]],
    }
