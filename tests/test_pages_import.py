import json
import os
import subprocess
import sys

from workspaces import ROOT, loaded_modules

from pages.components.navigation import PAGES

HEAVY = {"torch", "transformers", "torchvision", "datasets"}

SCRIPT = """
import json, sys
sys.path[:0] = ["tests", "."]
import workspaces
workspace = workspaces.tiny_workspace()
workspaces.add_index(workspace)
workspaces.add_features(workspace, "train"), workspaces.add_features(workspace, "test")
shown = {}
for page in sys.argv[1:]:
    app = workspaces.open_app(page, example="test-0")
    heavy = sorted(set(sys.modules) & {"torch", "transformers", "torchvision", "datasets"})
    shown[page] = {"heavy": heavy, "titles": [title.value for title in app.title], "failed": len(app.exception)}
print(json.dumps(shown))
"""


def test_every_page_runs_in_a_process_without_torch(tmp_path):
    names = [name for name, *_ in PAGES]
    environment = {**os.environ, "INFLUENCE_HOME": str(tmp_path / "home")}
    environment.pop("INFLUENCE_DATABASE_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    shown = json.loads(done.stdout.splitlines()[-1])
    titles = {name: title for name, title, *_ in PAGES}
    assert shown == {name: {"heavy": [], "titles": [titles[name]], "failed": 0} for name in names}


def test_no_component_imports_torch():
    names = sorted(path.stem for path in (ROOT / "pages" / "components").glob("[a-z]*.py"))
    assert "guard" in names
    assert loaded_modules(f"from pages.components import {', '.join(names)}") & HEAVY == set()


def test_the_check_sees_torch_when_it_is_there():
    assert "torch" in loaded_modules("import torch")
