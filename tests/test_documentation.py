"""The commands and snippets of the README run as written, but for the model (the bundled one) and the demo's size."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from clipsieve import demo
from clipsieve.cli import app
from clipsieve.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: captions.jsonl, raw/*.parquet, recipe.yaml, a.jpg and b.jpg."""
    folder = tmp_path_factory.mktemp("readme")
    demo.generate(folder / "data", seed=3, documents=8, pairs=8)
    shutil.copytree(folder / "data" / "images", folder / "images")
    (folder / "pairs.jsonl").write_text("")
    (folder / "data" / "pairs.jsonl").rename(folder / "captions.jsonl")
    (folder / "raw").mkdir()
    (folder / "data" / "documents.parquet").rename(folder / "raw" / "0.parquet")
    pictures = sorted((folder / "images").glob("*.jpg"))
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(pictures[-1], folder / name)
    recipe = blocks("yaml")[0]
    (folder / "recipe.yaml").write_text(recipe.replace("openai/clip-vit-base-patch32", "demo"))
    return folder


def commands() -> list[str]:
    lines = [line.partition(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("clipsieve ")]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command: str, workplace: Path) -> None:
    if command.startswith(("clipsieve run --read", "clipsieve score", "clipsieve label")):
        command += " --model demo"
    done = subprocess.run(
        command.replace("clipsieve", f"{sys.executable} -m clipsieve.cli", 1),
        shell=True, cwd=workplace, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if command.startswith("clipsieve run"):
        shutil.rmtree(workplace / "curated")


def test_the_python_of_the_readme_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    monkeypatch.chdir(workplace)
    shutil.rmtree("clipsieve-run", ignore_errors=True)
    exec(compile(code, "README.md", "exec"), {})
    assert list(Path("curated").glob("*.tar"))


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md", "docs/guide.md"])
def test_every_recipe_in_the_documentation_is_one(page: str) -> None:
    for block in blocks("yaml", (ROOT / page).read_text(encoding="utf-8")):
        Recipe.build({"read": "somewhere", **yaml.safe_load(block)})


def test_the_script_and_the_manifest_for_clusters_are_well_formed() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (script,) = blocks("bash", page)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (manifest,) = blocks("yaml", page)
    spec = yaml.safe_load(manifest)["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    for command in (spec["entrypoint"], script[script.index("\nclipsieve run") :]):
        program, name, *given = shlex.split(command)
        assert (program, name) == ("clipsieve", "run")
        assert "ray" in typer.main.get_command(app).commands["run"].make_context("run", given).params.values()


@pytest.mark.parametrize(
    "page", [path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]], ids=str
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / page.parent / target).exists(), target
