"""The examples in the docstrings of `core` run and give the results that they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import napari_meduet.core

ROOT = napari_meduet.core
MODULES = [module.name for module in pkgutil.walk_packages(ROOT.__path__, f"{ROOT.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_there_are_examples():
    tests = [doctest.DocTestFinder().find(importlib.import_module(name)) for name in MODULES]
    assert sum(bool(test.examples) for of_module in tests for test in of_module) >= 9
