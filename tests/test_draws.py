"""Whether items may draw from the global random generators: no only where that is certain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from project import Project
from psyrun.draws import may_draw

QUIET = [
    "def execute(x):\n    return {'y': x * x}",
    "import math\ndef execute(x):\n    return {'y': math.sin(x)}",
    "import numpy as np\ndef execute(x):\n    return {'y': np.linalg.norm(np.arange(x))}",
    "from numpy import linalg\ndef execute(x):\n    return {'y': linalg.norm([x])}",
    "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x, *a, k=1, **b):\n    return {i: k for i in a}",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef execute(x):\n    return {'y': P(x).x}",
]
DRAWING = [
    "import numpy as np\npspace = Param(x=np.random.rand(3))\ndef execute(x):\n    return {'y': x}",
    "import model\npspace = model.space\ndef execute(x):\n    return {'y': x}",
    "import numpy as np\nm = np.load('m.npy', allow_pickle=True).item()\ndef execute(x):\n    return m.run(x)",
    "import numpy as n\nclass N(float):\n    def s(self):\n        return n.random.rand()\ndef execute(x):\n    x.s()",
    "import numpy as np\nf = {}\ng = f\ng['r'] = np.random.rand\ndef execute(x):\n    return {'y': f['r']()}",
    "import numpy as np\ndef execute(x):\n    match np:\n        case object(random=r):\n            r.rand()",
    "import numpy as np\ndef execute(x):\n    return {'y': np.__getattr__('random').rand()}",
    "import psyrun\ndef execute(x):\n    return psyrun.tasks.load_task('u', 'psy-tasks').execute(x)",
    "from psyrun import load\ndef execute(x):\n    return load('u')",
    "import random\ndef execute(x):\n    return {'y': random.random()}",
    "from random import random as r\ndef execute(x):\n    return {'y': r()}",
    "def execute(x):\n    import random\n    return {'y': random.random()}",
    "import numpy as np\ndef execute(x):\n    return {'y': np.random.rand()}",
    "from numpy import random as r\ndef execute(x):\n    return {'y': r.rand()}",
    "import numpy.random as r\ndef execute(x):\n    return {'y': r.rand()}",
    "from numpy.random import rand\ndef execute(x):\n    return {'y': rand()}",
    "from numpy import *\ndef execute(x):\n    return {'y': random.rand()}",
    "import numpy as np\nr = np.random\ndef h():\n    return r.rand()\ndef execute(x):\n    return {'y': h()}",
    "import numpy as np\ndef execute(x):\n    return {'y': getattr(np, 'ran' + 'dom').rand()}",
    "import numpy as np\ndef execute(x):\n    return {'y': np.__dict__['random'].rand()}",
    "from operator import attrgetter\nimport numpy as np\ndef execute(x):\n    return attrgetter('random')(np)",
    "import functools\ndef execute(x):\n    return {'y': functools.sys.modules['random'].random()}",
    "import model\ndef execute(x):\n    return model.run(x)",
    "from . import model\ndef execute(x):\n    return model.run(x)",
    "from .math import run\ndef execute(x):\n    return run(x)",
    "from scipy.stats import norm\ndef setup(n):\n    return {'d': norm()}\ndef execute(x, d):\n    return {'y': d.rvs()}",  # noqa: E501
    "def execute(x):\n    return {'y': eval('__import__(\"random\").random()')}",
    "def execute(x):\n    return {'y': rand()}",
    "execute = model",
    "@decorated\ndef execute(x):\n    return {}",
]


@pytest.mark.parametrize("source", QUIET)
def test_code_that_draws_nothing_is_known(source: str) -> None:
    """What only the space uses does not matter."""
    assert not may_draw(source, "", "task_t.py")


@pytest.mark.parametrize("source", DRAWING)
def test_code_that_may_draw_is_met(source: str) -> None:
    """By name, through a helper, through a module that nobody looked into, and on ways around names."""
    assert may_draw(source, "", "task_t.py")


def test_functions_of_the_configuration_may_draw() -> None:
    """They are not looked into."""
    assert may_draw("def execute(x):\n    return {}", "def setup(n):\n    return {}", "task_t.py")
    assert not may_draw("def execute(x):\n    return {}", "max_jobs = 3", "task_t.py")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without tasks."""
    return Project(tmp_path)


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()"])
def test_items_that_draw_get_the_same_numbers_in_any_order(project: Project, draw: str) -> None:
    """Seeded from their keys: two workers or one, all at once or one by one."""
    source = "import random\nimport numpy as np\nfrom psyrun import Param\npspace = Param(x=range({stop}))\n"
    source += f"def execute(x):\n    return {{{{'y': {draw}}}}}\n"
    project.task("t", source.format(stop=20))
    project.run("-n", "2", "t")
    first = project.result("t")["y"].tolist()
    assert len(set(first)) == 20
    shutil.rmtree(project.path / "psy-work")
    project.task("t", source.format(stop=7))
    project.run("-n", "1", "t")
    project.task("t", source.format(stop=20))
    project.run("-n", "1", "t")
    assert project.result("t")["y"].tolist() == first


def test_children_that_draw_before_their_first_item_draw_different_numbers(project: Project) -> None:
    """Their processes are forked from one."""
    source = """
        import time
        import numpy as np
        from psyrun import Multiprocessing, Param
        pspace = Param(x=range(8))
        scheduler = Multiprocessing(4)
        def setup(child):
            return {"child": child, "drawn": np.random.rand()}
        def execute(x, child, drawn):
            time.sleep(0.1)
            return {}
        """
    project.task("t", source)
    project.run("t")
    result = project.result("t")
    drawn = dict(zip(result["child"].tolist(), result["drawn"].tolist(), strict=True))
    assert len(drawn) > 1
    assert len(set(drawn.values())) == len(drawn)
