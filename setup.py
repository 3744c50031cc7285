"""Copy the recipes of ``configs`` and the programs of ``deploy`` into the package, as
``mindyolo_ext/configs`` and ``mindyolo_ext/deploy``. pyproject.toml defines everything else.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FOLDERS = ("configs", "deploy")


class BuildWithFolders(build_py):
    """Copy the folders, except for an editable install, which finds them in the clone."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in FOLDERS:
            target = Path(self.build_lib, "mindyolo_ext", name)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithFolders})
