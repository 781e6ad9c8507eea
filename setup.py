"""Installs the source folders under one name, `bittern`; everything else is in pyproject.toml.

setuptools finds packages by itself only where folders are named like them, so the mapping is
computed here: the folder `index/` becomes the package `bittern.index`, and so on.
"""

from setuptools import find_packages, setup

FOLDERS = ("encoders", "hashing", "index", "service", "benchmarks")

setup(
    package_dir={"bittern": "bittern"} | {f"bittern.{name}": name for name in FOLDERS},
    packages=find_packages(include=["bittern", "bittern.*"])
    + [
        f"bittern.{package}"
        for name in FOLDERS
        for package in find_packages(include=[name, f"{name}.*"])
    ],
)
