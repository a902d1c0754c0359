"""Fixtures that several files of tests use: the command line through its own entry point."""

import pytest
import torch
from hypothesis import settings

from lasslab import cli

# A busy machine is no failure: what is fast is measured in benchmarks/.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def lasslab(monkeypatch, capsys):
    """Run the command; returns exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lasslab", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def tiny_editor(tmp_path_factory):
    """Folder of an untrained editor of the smallest size, with a VAE as small and Griffin-Lim."""
    from lasslab.models.checkpoints import save_network
    from lasslab.models.vae import MelVAE, VAEConfig
    from lasslab.models.velocity import VelocityConfig, VelocityNetwork

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("editor")
    space = VAEConfig(channels=(4, 8), latent_channels=2)
    sizes = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=2, text_dim=384)
    vae = save_network(folder / "vae", MelVAE(space), {"system": "vae", "network": space})
    settings = {"vae": str(vae), "vocoder": "griffin-lim", "window_seconds": 1.28, "n_steps": 2, "adapter": False}
    config = {"system": "flow-editor", "network": sizes, **settings}
    return save_network(folder / "tiny", VelocityNetwork(sizes), config)


@pytest.fixture
def refused(lasslab, tmp_path):
    """Run a command that must be refused: one line with every one of `words`, and no new file anywhere."""

    def run(*arguments, words):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = lasslab(*arguments)
        lines = err.strip().splitlines()
        assert code == 2, err
        assert len(lines) == 1 and lines[0].startswith("lasslab: "), err
        assert "Traceback" not in err and out == ""
        for word in words:
            assert str(word) in lines[0], lines[0]
        assert sorted(tmp_path.rglob("*")) == before, "the refused command left something behind"
        return lines[0]

    return run
