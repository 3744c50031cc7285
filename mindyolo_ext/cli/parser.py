"""All verbs with their one-line descriptions, and the parser of a command line."""

import argparse
from collections.abc import Sequence

from mindyolo_ext import __version__
from mindyolo_ext.cli import (
    about,
    benchmark,
    compare,
    convert,
    data,
    evaluate,
    migrate,
    new,
    predict,
    reproduce,
    serve,
    split,
    train,
)
from mindyolo_ext.cli.arguments import Verb
from mindyolo_ext.cli.backend import add_backend
from mindyolo_ext.cli.manners import Parser, VerbParser
from mindyolo_ext.errors import closest, shown

VERBS = (
    Verb("train", train.train, train.add_train, "train a recipe"),
    Verb(
        "test",
        evaluate.test,
        evaluate.add_test,
        "evaluate a checkpoint: COCO metrics, table by class, detections, speed",
    ),
    Verb(
        "compare",
        compare.compare,
        compare.add_compare,
        "compare two checkpoints or results: metrics, classes, images that differ most",
    ),
    Verb(
        "predict",
        predict.predict,
        predict.add_predict,
        "detect objects in images, folders and videos",
    ),
    Verb(
        "serve",
        serve.serve,
        serve.add_serve,
        "detect objects in images sent over HTTP, with a web page to drop them on",
    ),
    Verb(
        "convert",
        convert.convert,
        convert.add_convert,
        "convert a PyTorch or MindYOLO checkpoint (no torch needed), or back",
    ),
    Verb(
        "verify",
        convert.verify,
        convert.add_verify,
        "compare a converted checkpoint with reference numbers",
    ),
    Verb(
        "reproduce",
        reproduce.reproduce,
        reproduce.add_reproduce,
        "check that published weights reach the published AP, and write a report",
    ),
    Verb(
        "export",
        convert.export,
        convert.add_export,
        "write ONNX, OpenVINO, ncnn, MindIR or AIR, with a parity check",
    ),
    Verb(
        "benchmark",
        benchmark.benchmark,
        benchmark.add_benchmark,
        "compare a network in several runtimes: AP, speed, size, memory, start-up time",
    ),
    Verb("anchors", data.anchors, data.add_anchors, "compute anchors for a data set"),
    Verb(
        "thresholds",
        evaluate.thresholds,
        evaluate.add_thresholds,
        "measure how easy images are for a routed model, and store the threshold of every share of "
        "easy images in its checkpoint",
    ),
    Verb(
        "check-data",
        data.check_data,
        data.add_check_data,
        "read a whole data set and report every fault",
    ),
    Verb("split", split.split, split.add_split, "split a data set into folds for cross-validation"),
    Verb(
        "assign", data.assign, data.add_assign, "draw which predictions are assigned to which box"
    ),
    Verb(
        "models",
        about.models,
        about.add_models,
        "list all models with sizes, published results, license terms and links to weights",
    ),
    Verb(
        "recipes", about.recipes, about.add_recipes, "list the recipes that --config knows by name"
    ),
    Verb("new", new.new, new.add_new, "write a short recipe for your own data set"),
    Verb(
        "migrate",
        migrate.migrate,
        migrate.add_migrate,
        "translate a MindYOLO recipe of YOLOX, and explain every key",
    ),
    Verb("recipe", about.recipe, about.add_recipe_verb, "explain the settings of a recipe"),
    Verb("info", about.info, about.add_info, "show what a checkpoint or exported file holds"),
    Verb(
        "doctor",
        about.doctor,
        about.add_doctor,
        "show versions, device, settings and what was tested on which device",
    ),
    Verb(
        "demo",
        about.demo,
        about.add_demo,
        "generate a data set, train on 2 ranks, evaluate, convert, predict",
    ),
)


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser of a command line; only the verbs that it names get their arguments.

    Exits with status 2, and suggests the closest verb, if the first word is not a verb.
    """
    parser = Parser(prog="mindyolo-ext", description="Object detectors on MindSpore or PyTorch.")
    parser.add_argument("--version", action="version", version=f"mindyolo_ext {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the Python traceback of an error"
    )
    verbs = parser.add_subparsers(
        title="verbs", required=True, metavar="VERB", parser_class=VerbParser
    )
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.text, description=verb.text)
        sub.set_defaults(run=verb.run)
        sub.add_argument(
            "--log_level",
            type=str.upper,
            default="INFO",
            choices=["DEBUG", "INFO", "WARNING", "ERROR"],
            help="lowest level of the messages to show",
        )
        add_backend(sub)
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        if verb.name in arguments and verb.add is not None:
            verb.add(sub)
    _check_verb(parser, arguments)
    return parser


def _check_verb(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Exit with status 2 if the first word that is not an option is not a verb."""
    first = next((word for word in arguments if not word.startswith("-")), None)
    names = [verb.name for verb in VERBS]
    if first is not None and first not in names:
        near = closest(first, names)
        hint = f", did you mean {near}?" if near else f"; verbs are {', '.join(names)}"
        parser.error(f"unknown verb {shown(first)}{hint}")
