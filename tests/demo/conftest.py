import planted_checks
import pytest


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory):
    """Folders of demo models of seed 0 by architecture."""
    root = tmp_path_factory.mktemp("demo")
    for architecture in planted_checks.ARCHITECTURES:
        done = planted_checks.write_model(root / architecture, architecture)
        assert done.returncode == 0, done.stderr
    return {name: root / name for name in planted_checks.ARCHITECTURES}
