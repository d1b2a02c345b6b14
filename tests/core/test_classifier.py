"""The classifier: pooling by body coverage, and scores of a scan from those of its windows."""

import torch

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier, scan_scores

NARROW = ClassifierConfig(num_classes=3, grid=(2, 2, 2), width=12, depth=1, heads=2)


def test_a_window_gets_a_score_for_every_class():
    assert ScanClassifier(NARROW)(torch.randn(2, 4, 8, 8, 8)).shape == (2, 3)


def test_tokens_without_body_do_not_count():
    network = ScanClassifier(NARROW).eval()
    tokens = torch.randn(1, 8, 12)
    coverage = torch.tensor([[1.0, 1.0, 0, 0, 0, 0, 0, 0]])
    network.encoder.forward = lambda latent: tokens
    expected = network.scores(tokens[:, :2].mean(dim=1))
    torch.testing.assert_close(network(torch.zeros(1, 4, 8, 8, 8), coverage), expected)


def test_a_scan_scores_as_its_windows_do_by_their_share_of_body():
    scores = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert scan_scores(scores, torch.tensor([3.0, 1.0])).tolist() == [0.75, 1.0]
