"""The package as it is installed: what is in the wheel, and every way to start it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, as a release is built."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("collectors", "health_exporter"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = source / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(source / "dist"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next((source / "dist").glob("*.whl"))


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        top_level = next(name for name in names if name.endswith("top_level.txt"))
        assert archive.read(top_level).decode().split() == ["collectors", "health_exporter"]
    folders = {name.split("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"collectors", "health_exporter"}


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    modules = {
        str(path.relative_to(ROOT))
        for package in ("collectors", "health_exporter")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".pem"} or path.name == "py.typed"
    }
    assert modules <= packed


def test_an_installed_wheel_has_a_working_console_script(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    result = subprocess.run(
        [sys.executable, str(target / "bin" / "health-exporter"), "--version"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        timeout=60,
    )
    assert result.stdout.startswith("health_exporter, version ")


@pytest.mark.parametrize("start", [["exporter.py"], ["-m", "health_exporter"]])
def test_a_checkout_starts_without_being_installed(start: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, *start, "--version"], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.stdout.startswith("health_exporter, version ")


def test_the_launcher_starts_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "exporter.py"), "--version"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, timeout=60)


def test_collectors_load_no_web_server() -> None:
    code = "import sys, collectors; assert not [m for m in sys.modules if m.startswith('aiohttp.web')]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    "module",
    sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("collectors", "health_exporter")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__main__.py"
    ),
)
def test_every_module_can_be_imported_alone(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, timeout=60)
