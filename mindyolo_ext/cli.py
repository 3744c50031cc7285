"""The console command ``mindyolo-ext VERB``; ``train.py`` and ``test.py`` are two of its verbs.

Frameworks are imported inside the verbs: ``--help`` and wrong arguments answer at once.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mindyolo_ext import __version__

logger = logging.getLogger("mindyolo_ext")
PACKAGE_ROOT = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for an error that was explained, 130 after
    Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    _set_up_logging(getattr(options, "log_level", "INFO"))
    try:
        with _sigterm_as_ctrl_c():
            options.run(options)
    except KeyboardInterrupt:
        return _failed(
            "stopped by Ctrl-C; what was saved stays (train.py goes on with --resume)", 130
        )
    except (ValueError, OSError, RuntimeError, FloatingPointError, TypeError) as error:
        # Of the TypeErrors only a keyword that a recipe misspells is the user's; the others are
        # faults of ours.
        if options.debug or (isinstance(error, TypeError) and "keyword argument" not in str(error)):
            raise
        # without MindSpore's C++ call stack
        return _failed(str(error).split("\n\n---")[0].rstrip(), 1)
    return 0


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside; the handler from before is put back at the end.

    A running graph answers Ctrl-C by sending the process SIGTERM, and job schedulers send it: both
    end the run in order. Only the main thread may set handlers, so a call from another thread
    leaves them alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: set outside Python
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(*_: object) -> None:
    """Signal handler: as Ctrl-C. Raises: KeyboardInterrupt."""
    raise KeyboardInterrupt


def _failed(message: str, status: int) -> int:
    """Log the message; with several ranks end them all, because the others would wait for this
    one.
    """
    logger.error("error: %s", message)
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    if launch is not None and launch.world().size > 1:
        launch.abort(status)
    return status


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``train.py``: the verb ``train``."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def test_main(arguments: Sequence[str] | None = None) -> int:
    """``test.py``: the verb ``test``."""
    return main(["test", *(sys.argv[1:] if arguments is None else arguments)])


# ---- arguments -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mindyolo-ext", description="Object detectors on MindSpore."
    )
    parser.add_argument("--version", action="version", version=f"mindyolo_ext {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the Python traceback of an error"
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument(
            "--log_level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
        )
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        return sub

    _add_train(verb("train", _train, "train a recipe"))
    _add_test(
        verb(
            "test", _test, "evaluate a checkpoint: COCO metrics, table by class, detections, speed"
        )
    )
    _add_predict(verb("predict", _predict, "find objects in pictures, folders and videos"))
    _add_convert(
        verb(
            "convert",
            _convert,
            "convert a PyTorch or MindYOLO checkpoint (no torch needed), or back",
        )
    )
    _add_verify(verb("verify", _verify, "compare a converted checkpoint with reference numbers"))
    _add_export(verb("export", _export, "write MindIR, ONNX or AIR, with a parity check"))
    _add_anchors(verb("anchors", _anchors, "compute anchors for a data set"))
    _add_thresholds(
        verb(
            "thresholds",
            _thresholds,
            "measure how easy pictures are for a routed model, and write the "
            "thresholds for every share of easy pictures into its checkpoint",
        )
    )
    _add_check_data(verb("check-data", _check_data, "read a whole data set and report what is odd"))
    _add_assign(verb("assign", _assign, "draw which predictions are trained on which box"))
    info = verb("info", _info, "say what a checkpoint or exported file holds")
    info.add_argument("file", type=Path)
    info.add_argument(
        "--gflops",
        action="store_true",
        help="count the operations too, at the checkpoint's input size; builds the network",
    )
    verb("doctor", _doctor, "versions, device, settings and what was tested where")
    demo = verb("demo", _demo, "draw a data set, train on 2 ranks, evaluate, convert, predict")
    demo.add_argument("--save_dir", type=Path, default=Path("runs/demo"))
    demo.add_argument("--ranks", type=int, default=2)
    return parser


def _bool(text: str) -> bool:
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"wanted True or False, got {text!r}")
    return values[text.lower()]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",") if word.strip()]


def _keyword(text: str) -> tuple[str, object]:
    """(name, value) of ``name=value``, the value as in YAML."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"wanted NAME=VALUE, got {text!r}")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the value is not valid YAML") from error


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device_target", default="CPU", choices=["CPU", "GPU", "Ascend"])
    parser.add_argument(
        "--is_parallel",
        type=_bool,
        default=False,
        metavar="True|False",
        help="join the ranks of mpirun or msrun",
    )
    parser.add_argument(
        "--ms_mode", type=int, default=0, choices=[0, 1], help="0 graph, 1 pynative (debugging)"
    )
    parser.add_argument(
        "--compile_cache",
        type=Path,
        metavar="DIR",
        help="keep compiled graphs there: the next start with the same recipe skips the "
        "compilation",
    )


def _add_recipe(parser: argparse.ArgumentParser, *, config_required: bool) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        required=config_required,
        help="recipe, for example configs/yolo_fastestv2/yolo-fastestv2.yaml",
    )
    parser.add_argument(
        "--data_root", help="folder to which the recipe's data paths refer (data.root)"
    )
    parser.add_argument(
        "--data", help="darknet-style .data file: what it says wins over the recipe"
    )
    parser.add_argument(
        "--img_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="network size: side, or height width",
    )
    parser.add_argument("--workers", type=int, help="data workers (data.workers)")
    parser.add_argument("--ms_amp_level", choices=["O0", "O1", "O2", "O3"], help="mixed precision")
    parser.add_argument("--conf_thres", type=float)
    parser.add_argument("--iou_thres", type=float)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any key of the recipe; may be given several times",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=True)
    _add_machine(parser)
    parser.add_argument("--weight", help="start from this checkpoint (fine-tuning)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --save_dir")
    parser.add_argument("--per_batch_size", type=int, help="pictures per rank and step")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--save_dir", type=Path, help="folder of the run (runs/<recipe>)")
    parser.add_argument(
        "--run_eval", type=_bool, metavar="True|False", help="evaluate while training"
    )
    parser.add_argument("--run_eval_interval", type=int, help="epochs between evaluations")
    parser.add_argument("--log_interval", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--accumulate", type=int, help="micro batches per update")
    parser.add_argument("--sync_bn", type=_bool, metavar="True|False")
    parser.add_argument("--ema", type=_bool, metavar="True|False", help="False: no moving average")
    parser.add_argument("--clip_grad", type=_bool, metavar="True|False")
    parser.add_argument("--clip_grad_value", type=float, default=10.0)
    parser.add_argument("--ms_loss_scaler", choices=["none", "static", "dynamic"])
    parser.add_argument("--ms_loss_scaler_value", type=float)


def _add_test(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=True)
    _add_machine(parser)
    parser.add_argument(
        "--weight",
        type=Path,
        required=True,
        help="checkpoint of train.py or `mindyolo-ext convert`",
    )
    parser.add_argument("--per_batch_size", type=int)
    parser.add_argument(
        "--rectangular",
        type=_bool,
        metavar="True|False",
        help="batches of pictures of like shape, as narrow as they allow (eval.rectangular); "
        "compiles once per shape",
    )
    parser.add_argument(
        "--coco_backend",
        choices=["pycocotools", "faster_coco_eval"],
        help="what computes COCO's metrics (eval.backend); the second is quicker and an extra "
        "package",
    )
    _add_route(parser)
    parser.add_argument(
        "--curve",
        type=_bool,
        default=False,
        metavar="True|False",
        help="of a routed model: both exits on every picture, then AP over GFLOPs and speed for 0, "
        "10, ... 100 %% hard pictures; instead of the usual metrics",
    )
    parser.add_argument("--save_dir", type=Path, default=Path("runs_test"))
    parser.add_argument("--seed", type=int, default=0)


def _add_route(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dy_thres",
        type=float,
        metavar="T",
        help="of a routed model: pictures whose easiness is "
        "below T take the second exit; 0 sends all to the first, 1 all to the second",
    )
    which.add_argument(
        "--easy",
        type=float,
        metavar="SHARE",
        help="of a routed model: share of easy pictures to aim "
        "at, in 0..1, by the thresholds in the checkpoint (`mindyolo-ext thresholds`)",
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="picture, video, folder, or a pattern in quotes")
    parser.add_argument("--weight", type=Path, required=True)
    parser.add_argument("--device_target", default="CPU", choices=["CPU", "GPU", "Ascend"])
    parser.add_argument("--conf_thres", type=float, default=0.3)
    parser.add_argument("--iou_thres", type=float, default=0.45)
    parser.add_argument(
        "--class_agnostic", action="store_true", help="merge boxes of different classes too"
    )
    _add_route(parser)
    parser.add_argument("--img_size", type=int, nargs="+", metavar="PIXELS")
    parser.add_argument("--save_dir", type=Path, default=Path("runs/predict"))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help=".pt, .pth, .safetensors or .ckpt")
    parser.add_argument(
        "target",
        type=Path,
        help=".ckpt or .safetensors; or .pth to write one of ours in the original's format",
    )
    parser.add_argument("--model", help="registry name, where the keys do not tell")
    parser.add_argument(
        "--data", type=Path, help=".data file of Yolo-FastestV2: anchors, class names"
    )
    parser.add_argument(
        "--anchors", type=_numbers, metavar="W,H,W,H,...", help="pixels, finest level first"
    )
    parser.add_argument("--names", type=Path, help="text file with a class name per line")
    parser.add_argument(
        "--input",
        help="input the weights were trained with, where they do not tell; YOLOX: official, "
        "legacy, mindyolo; Gold-YOLO: usual, published",
    )
    parser.add_argument(
        "--model_keyword",
        type=_keyword,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keyword of the model's builder that the weights do not tell, for example "
        "assignment=single_grid; may be given several times",
    )
    parser.add_argument("--report", type=Path, help="write what became of each tensor as JSON")
    parser.add_argument(
        "--no_ema", action="store_true", help="take the raw weights where the file has both"
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weight", type=Path, help="converted checkpoint")
    parser.add_argument("--arrays", type=Path, help="stored reference arrays (.npz)")
    parser.add_argument(
        "--images", type=Path, help="folder of the photos that --arrays were made from"
    )
    parser.add_argument(
        "--torch_repo",
        "--torch-repo",
        type=Path,
        help="clone of the original program, run beside this one",
    )
    parser.add_argument(
        "--torch_python",
        "--torch-python",
        default=sys.executable,
        help="Python with torch for the original program",
    )
    parser.add_argument("--source", type=Path, help="the original checkpoint (with --torch_repo)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weight", type=Path, required=True)
    parser.add_argument(
        "--format", nargs="+", default=["onnx", "mindir"], choices=["onnx", "mindir", "air"]
    )
    parser.add_argument(
        "--output", type=Path, help="file name without suffix; beside the checkpoint if not given"
    )
    parser.add_argument("--img_size", type=int, nargs="+", metavar="PIXELS")
    parser.add_argument("--per_batch_size", type=int, default=1)
    parser.add_argument(
        "--raw", action="store_true", help="the network's own outputs, not decoded boxes and scores"
    )
    parser.add_argument(
        "--parts",
        type=int,
        choices=[2, 3],
        help="of a routed model: files it is cut into; 3 puts the "
        "head of the first detector into one of its own (2 if not given)",
    )


def _add_anchors(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=False)
    parser.add_argument(
        "--traintxt",
        help="list of pictures with labels beside them or in labels/ (as genanchors.py)",
    )
    parser.add_argument("--num_clusters", type=int, default=6)
    parser.add_argument("--input_width", type=int, default=352)
    parser.add_argument("--input_height", type=int, default=352)
    parser.add_argument("--output_dir", type=Path, default=Path("."))
    parser.add_argument("--seed", type=int, default=0)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=True)
    _add_machine(parser)
    parser.add_argument(
        "--weight", type=Path, required=True, help="checkpoint of a routed model with its router"
    )
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument("--output", type=Path, help="checkpoint to write; the same if not given")
    parser.add_argument("--per_batch_size", type=int)
    parser.add_argument("--rectangular", type=_bool, metavar="True|False", help="as in test.py")
    parser.add_argument("--seed", type=int, default=0)


def _add_check_data(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=True)
    parser.add_argument("--split", default="train", choices=["train", "val"])


def _add_assign(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, config_required=True)
    parser.add_argument(
        "--weight", type=Path, help="checkpoint; without one the network has fresh weights"
    )
    parser.add_argument("--split", default="train", choices=["train", "val"])
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--image", nargs="+", default=[], metavar="NAME", help="file names, or patterns in quotes"
    )
    which.add_argument(
        "--index", nargs="+", type=int, default=[], metavar="N", help="numbers of pictures, from 0"
    )
    which.add_argument(
        "--count", type=int, default=4, help="so many pictures, spread over the data set"
    )
    parser.add_argument(
        "--augment", action="store_true", help="as the first epoch of training makes the pictures"
    )
    parser.add_argument("--device_target", default="CPU", choices=["CPU", "GPU", "Ascend"])
    parser.add_argument("--save_dir", type=Path, default=Path("runs/assign"))


# ---- verbs ---------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> None:
    config = _recipe(
        options,
        extra=[
            text
            for text in (
                *_given(
                    options,
                    epochs="train.epochs",
                    per_batch_size="train.per_batch_size",
                    run_eval="train.run_eval",
                    run_eval_interval="train.eval_interval",
                    log_interval="train.log_interval",
                    seed="train.seed",
                    accumulate="train.optimizer.accumulate",
                    sync_bn="train.sync_bn",
                    weight="train.weight",
                    ms_loss_scaler="train.loss_scaler",
                    ms_loss_scaler_value="train.loss_scale",
                ),
                "train.ema_decay=0" if options.ema is False else "",
                f"train.optimizer.clip_norm={options.clip_grad_value}" if options.clip_grad else "",
                *options.set,
            )
            if text
        ],
    )
    this = _start(options, config.train.seed, config.to_yaml())
    from mindyolo_ext.engine.train import train

    if this.is_main:
        logger.info("recipe:\n%s", config.to_yaml())
    train(config, options.save_dir or Path("runs") / options.config.stem, resume=options.resume)


def _test(options: argparse.Namespace) -> None:
    config = _recipe(
        options,
        extra=[
            *_given(
                options,
                per_batch_size="eval.per_batch_size",
                coco_backend="eval.backend",
                rectangular="eval.rectangular",
                dy_thres="eval.dy_thres",
            ),
            *options.set,
        ],
    )
    this = _start(options, options.seed, config.to_yaml() + _digest(options.weight))
    from mindyolo_ext.engine.build import load_model, split_dataset
    from mindyolo_ext.engine.evaluate import evaluate
    from mindyolo_ext.engine.routing import new_predictor
    from mindyolo_ext.engine.thresholds import check_router, choose_threshold

    model, metadata = load_model(options.weight, config)
    if options.curve:
        check_router(model, options.weight)
    threshold = choose_threshold(
        model,
        metadata,
        where=options.weight,
        easy=options.easy,
        dy_thres=config.eval.dy_thres if options.easy is None else None,
    )
    dataset = split_dataset(config, "val")
    if len(dataset.class_names) != metadata.num_classes:
        raise ValueError(
            f"{options.weight}: has {metadata.num_classes} classes, but data.val has "
            f"{len(dataset.class_names)} ({', '.join(dataset.class_names[:5])}"
            f"{', ...' if len(dataset.class_names) > 5 else ''})"
        )
    if this.is_main:
        logger.info(
            "%s: %s, %d classes, input %s; %d pictures",
            options.weight,
            metadata.model,
            metadata.num_classes,
            model.input_spec.size,
            len(dataset),
        )
        options.save_dir.mkdir(parents=True, exist_ok=True)
    predictor = new_predictor(model, fold=config.eval.fold, dy_thres=threshold)
    workers = {"workers": config.data.workers, "worker_kind": config.data.worker_kind}
    if options.curve:
        from mindyolo_ext.engine.accuracy_speed import FILES, accuracy_over_speed

        curve = accuracy_over_speed(predictor, dataset, config.eval, **workers)
        if this.is_main:
            curve.save(
                options.save_dir,
                f"{metadata.model}, {len(dataset)} pictures, {options.device_target}",
            )
            logger.info("\n%s\n%s: %s", curve.table(), ", ".join(FILES), options.save_dir)
        return
    result = evaluate(predictor, dataset, config.eval, save_dir=options.save_dir, **workers)
    if this.is_main:
        if result.routing is not None:
            result.routing.count_gflops(predictor.network, model.input_spec.size)
        from mindyolo_ext.visual.curves import plot_f1_curves, plot_pr_curves

        text = result.table()
        plot_pr_curves(result.coco, options.save_dir / "pr_curves.png")
        plot_f1_curves(result.coco, options.save_dir / "f1_curves.png")
        (options.save_dir / "metrics.txt").write_text(text + "\n", encoding="utf-8")
        logger.info("\n%s", text)
        logger.info(
            "detections.json, metrics.txt, pr_curves.png, f1_curves.png: %s", options.save_dir
        )


def _predict(options: argparse.Namespace) -> None:
    from mindyolo_ext.engine.predict import Detector, find_sources, predict_sources

    find_sources(options.source)  # a wrong path is told before anything is compiled
    detector = Detector(
        options.weight,
        device_target=options.device_target,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        size=_size(options),
        class_agnostic=options.class_agnostic,
        dy_thres=options.dy_thres,
        easy=options.easy,
    )
    predict_sources(detector, options.source, options.save_dir)


def _convert(options: argparse.Namespace) -> None:
    from mindyolo_ext.checkpoint.convert import convert, export_torch

    if options.target.suffix in (".pt", ".pth"):
        logger.info("\n%s", export_torch(options.source, options.target).table())
        return
    report = convert(
        options.source,
        options.target,
        model=options.model,
        report=options.report,
        data=options.data,
        anchors=options.anchors,
        names=options.names,
        prefer_ema=not options.no_ema,
        input_style=options.input,
        model_keywords=dict(options.model_keyword),
    )
    logger.info("\n%s", report.table())


def _verify(options: argparse.Namespace) -> None:
    from mindyolo_ext.checkpoint.verify import verify

    result = verify(
        options.weight,
        arrays=options.arrays,
        images=options.images,
        torch_repo=options.torch_repo,
        torch_python=options.torch_python,
        source=options.source,
    )
    logger.info("\n%s", result.table())
    if not result.passed:
        raise ValueError(f"verify {options.weight}: differences are larger than the tolerances")


def _export(options: argparse.Namespace) -> None:
    from mindyolo_ext.engine.export import export

    logger.info(
        "\n%s",
        export(
            options.weight,
            options.format,
            output=options.output,
            size=_size(options),
            batch_size=options.per_batch_size,
            raw=options.raw,
            parts=options.parts,
        ).table(),
    )


def _anchors(options: argparse.Namespace) -> None:
    from mindyolo_ext.data.anchors import generate_anchors, sizes_from_list

    if options.traintxt:
        source = sizes_from_list(options.traintxt)
    else:
        from mindyolo_ext.data.dataset import build_dataset

        config = _recipe(options, extra=options.set)
        source = build_dataset(config.data.train, config.data.root)
    size = _size(options) or (options.input_height, options.input_width)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for count in [options.num_clusters] if options.num_clusters else range(1, 11):
        result = generate_anchors(source, num_anchors=count, input_size=size, seed=options.seed)
        path = options.output_dir / f"anchors{count}.txt"
        path.write_text(result.text, encoding="utf-8")
        logger.info(
            "%d anchors, mean best IoU %.6f: %s\n%s",
            count,
            result.mean_iou,
            path,
            result.text.splitlines()[0],
        )


def _thresholds(options: argparse.Namespace) -> None:
    config = _recipe(
        options,
        extra=[
            *_given(options, per_batch_size="eval.per_batch_size", rectangular="eval.rectangular"),
            *options.set,
        ],
    )
    this = _start(options, options.seed, config.to_yaml() + _digest(options.weight))
    from mindyolo_ext.engine.thresholds import find_thresholds

    found = find_thresholds(config, options.weight, split=options.split, output=options.output)
    if this.is_main:
        logger.info(
            "\n%s\n\nthresholds: %s, histogram: %s. Next: test.py or predict with --weight %s "
            "--easy 0.5",
            found.table(),
            found.checkpoint,
            found.picture,
            found.checkpoint,
        )


def _check_data(options: argparse.Namespace) -> None:
    from mindyolo_ext.data.check import check_dataset
    from mindyolo_ext.data.dataset import build_dataset

    config = _recipe(options, extra=options.set)
    description = config.data.train if options.split == "train" else config.data.val
    report = check_dataset(build_dataset(description, config.data.root, strict=False))
    logger.info("\n%s", report.table())
    if not report.ok:
        raise ValueError(
            f"check-data: {sum(p.fatal for p in report.problems)} faults must be repaired before "
            "training"
        )


def _assign(options: argparse.Namespace) -> None:
    config = _recipe(options, extra=options.set)
    from mindyolo_ext.backend import launch

    launch.start(options.device_target, seed=config.train.seed)
    from mindyolo_ext.engine.assign import assign, choose_pictures
    from mindyolo_ext.engine.build import split_dataset

    dataset = split_dataset(config, options.split)
    indices = choose_pictures(
        dataset, image=options.image, index=options.index, count=options.count
    )
    written = assign(
        config,
        indices,
        options.save_dir,
        dataset=dataset,
        weight=options.weight,
        augment=options.augment,
    )
    logger.info("\nwritten: %d, in %s", len(written), options.save_dir)


def _info(options: argparse.Namespace) -> None:
    from mindyolo_ext.checkpoint.inspect import describe

    logger.info("\n%s", describe(options.file).table())
    if options.gflops:
        from mindyolo_ext.backend import launch

        launch.start("CPU")
        from mindyolo_ext.engine.flops import describe_gflops

        logger.info("%s", describe_gflops(options.file))


def _doctor(options: argparse.Namespace) -> None:  # noqa: ARG001
    from mindyolo_ext.engine.doctor import report

    logger.info("\n%s", report())


def _demo(options: argparse.Namespace) -> None:
    from mindyolo_ext.engine.demo import run

    run(options.save_dir, ranks=options.ranks)


# ---- shared --------------------------------------------------------------------------------------


def _recipe(options: argparse.Namespace, extra: Sequence[str] = ()):
    """The recipe with the flags that the verbs with a recipe share, and those in ``extra``."""
    from mindyolo_ext.config import Config, load_config, override

    if options.config is None:
        raise ValueError("--config or --traintxt is needed")
    from mindyolo_ext.engine.darknet import recipe_overrides

    texts = recipe_overrides(options.data) if options.data else []
    texts += _given(
        options,
        data_root="data.root",
        workers="data.workers",
        ms_amp_level="train.amp_level",
        conf_thres="eval.conf_thres",
        iou_thres="eval.iou_thres",
    )
    if options.img_size:
        texts.append(f"input.size={list(_size(options))}")
    override(Config(), extra)  # a wrong key is told as one of --set, not of the file
    return load_config(options.config, [*texts, *extra])


def _given(options: argparse.Namespace, **keys: str) -> list[str]:
    """``section.key=value`` for the flags that were given."""
    pairs = ((key, getattr(options, flag)) for flag, key in keys.items())
    return [f"{key}={value}" for key, value in pairs if value is not None]


def _size(options: argparse.Namespace) -> tuple[int, int] | None:
    if not options.img_size:
        return None
    if len(options.img_size) > 2:
        raise ValueError(f"--img_size: wanted a side or height and width, got {options.img_size}")
    return options.img_size[0], options.img_size[-1]


def _start(options: argparse.Namespace, seed: int, recipe: str):
    """Start MindSpore and the ranks; ranks other than 0 log warnings only.

    Compiled graphs hold constants of the recipe, so each recipe has a folder of its own in the
    cache.
    """
    from mindyolo_ext.backend import launch

    cache = options.compile_cache and launch.cache_folder(options.compile_cache, recipe)
    this = launch.start(
        options.device_target,
        is_parallel=options.is_parallel,
        graph_mode=options.ms_mode == 0,
        compile_cache=cache,
        seed=seed,
    )
    if not this.is_main:
        logging.getLogger().setLevel(logging.WARNING)
    return this


def _digest(path: Path) -> str:
    """SHA-256 of a file; a folded network keeps its weights as constants."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _set_up_logging(level: str) -> None:
    """Messages to standard output, times only where a log file would want them."""
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s", force=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
