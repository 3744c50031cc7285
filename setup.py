"""Puts the recipes of ``configs`` into the package, as ``mindyolo_ext/configs``; everything else
stands in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path(__file__).resolve().parent / "configs"


class BuildWithRecipes(build_py):
    """Copies the recipes, except for an editable install, which finds them in the clone."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "mindyolo_ext", "configs")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(RECIPES, target)


setup(cmdclass={"build_py": BuildWithRecipes})
