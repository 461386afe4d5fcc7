"""pyproject.toml, requirements.txt and environment.yml name one and the same set of packages."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from xai_utils.suite import claims

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11.9", "3.11.13", "3.12.11", "3.13.9")
APART = {"site": "site", "bench": "benchmarks"}  # extra → folder of its requirements.txt
PLATFORMS = (("linux", "x86_64"), ("darwin", "arm64"))


def direct_requirements():
    """All that `make setup` installs: what the site and the benchmarks need is pinned on its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in APART]
    return [Requirement(line) for part in (project["dependencies"], *extras) for line in part]


def pinned(python, platform, machine):
    environment = default_environment() | {
        "python_version": ".".join(python.split(".")[:2]), "python_full_version": python,
        "sys_platform": platform, "platform_machine": machine, "implementation_name": "cpython",
    }  # fmt: skip
    pins = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert name not in pins, f"{name} is pinned twice for Python {python}"
                (pin,) = requirement.specifier
                assert pin.operator == "==", line
                pins[name] = pin.version
    return pins


@pytest.mark.parametrize(("platform", "machine"), PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_pin_every_direct_dependency_once(python, platform, machine):
    pins = pinned(python, platform, machine)
    for requirement in direct_requirements():
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned for Python {python} on {platform}"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


@pytest.mark.parametrize("extra", APART)
def test_an_extra_of_its_own_pins_its_packages_apart_from_the_others(extra):
    lines = (ROOT / APART[extra] / "requirements.txt").read_text().splitlines()
    pins = {}
    for requirement in (Requirement(line) for line in lines if line and not line.startswith("#")):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        pins[canonicalize_name(requirement.name)] = pin.version
    assert not set(pins) & set(pinned("3.11.13", "linux", "x86_64"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["optional-dependencies"][extra]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_what_the_site_loads_from_npm_is_pinned_by_hash_and_names_no_host():
    wanted = json.loads((ROOT / "site" / "package.json").read_text())["dependencies"]
    locked = json.loads((ROOT / "site" / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    packages = {name: package for name, package in locked.items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())


def test_conda_gets_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    (python,) = [entry.removeprefix("python=") for entry in environment if str(entry).startswith("python=")]
    assert pip_lines[0] == "--constraint requirements.txt"
    assert pip_lines[-1] == "--editable ."
    listed = {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, pip_lines[1:-1])}
    assert set(listed) == {canonicalize_name(r.name) for r in direct_requirements()}
    pins = pinned(python, "linux", "x86_64")
    assert listed == {name: f"=={pins[name]}" for name in listed}


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import version
    from platform import machine, python_version
    from sys import platform

    pins = pinned(python_version(), platform, machine())
    for requirement in direct_requirements():
        name = canonicalize_name(requirement.name)
        assert version(name).split("+")[0] == pins[name], f"{name}: run make setup"


def fake_python(folder, version):
    """An interpreter that says it is `version`; it answers make's question and refuses anything else."""
    path = folder / "python"
    major, minor = version
    path.write_text(f"#!/bin/sh\nexec {os.sys.executable} -c 'import sys\nsys.version_info = ({major}, {minor}, 0)\n"
                    "exec(sys.argv[2])' \"$@\"\n")  # fmt: skip
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_other_pythons_are_refused_with_a_sentence(tmp_path, version):
    command = [
        "make",
        "-C",
        str(ROOT),
        "setup",
        f"PYTHON={fake_python(tmp_path, version)}",
        f"VENV={tmp_path / 'venv'}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert f"is Python {version[0]}.{version[1]}; this suite needs 3.11, 3.12 or 3.13" in result.stdout + result.stderr
    assert not (tmp_path / "venv").exists()


def test_without_any_python_setup_says_what_to_install(tmp_path):
    command = ["make", "-C", str(ROOT), "setup", "PYTHON=", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "No Python 3.11, 3.12 or 3.13 was found" in result.stdout


def test_without_npm_the_site_says_what_it_needs(tmp_path):
    code = "import pathlib, build; build.npm(pathlib.Path('npm'))"
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": f"{ROOT / 'site'}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "make site needs npm (it comes with Node.js) to fetch MathJax" in result.stderr
    assert not (tmp_path / "npm" / "node_modules").exists()


def test_offline_the_site_says_what_it_could_not_fetch(tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'request failed: no network' >&2\nexit 1\n")
    npm.chmod(0o755)
    code = "import pathlib, build; build.npm(pathlib.Path('fetched'))"
    environment = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'site'}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "npm could not fetch them (request failed: no network). Once online: make site" in result.stderr
    assert not (tmp_path / "fetched").exists()


def test_an_empty_name_of_an_environment_is_refused():
    result = subprocess.run(
        ["make", "-C", str(ROOT), "-n", "setup", "VENV="], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "VENV is empty: name the folder of an environment, or leave it out" in result.stderr


def test_ci_runs_the_two_commands_the_portable_check_and_the_fault_runs():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    made = [line for line in lines if line.startswith("make ")]
    more = ["make test-own", "make test-portable", "make test-faults", "make test-site"]
    assert made == ["make reproduce", "make test", *more]


def test_citation_names_every_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert len(citation["references"]) == len(claims.load().papers)
    assert all(reference["authors"] and reference["title"] for reference in citation["references"])
