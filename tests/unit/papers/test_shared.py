"""What papers share: loss, names of metrics, shifts and light, predictions with maps, and scores of errors."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from xai_utils.explain.gradcam import GradCAM, upsample
from xai_utils.models import resnet18
from xai_utils.papers import shared
from xai_utils.seeds import generator

SEED = 0


@pytest.mark.parametrize(
    ("logits", "labels", "share"),
    [
        ([[2.0, 0.0], [1.0, 3.0], [0.0, 0.5], [4.0, 4.5]], [0, 1, 0, 0], 0.5),
        ([[2.0, 0.0], [1.0, 3.0], [0.0, 0.5], [1.0, 4.5]], [0, 1, 0, 1], 0.75),
        ([[0.1, 0.2, -3.0]], [2], 0.0),
    ],
)
def test_cross_entropy_and_accuracy_by_hand(logits, labels, share):
    images = torch.rand(len(labels), 3, 5, 5)
    found = shared.cross_entropy({images: torch.tensor(logits)}.get, (images, torch.tensor(labels)), None)
    rows = [-row[k] + math.log(sum(map(math.exp, row))) for row, k in zip(logits, labels)]
    assert found["loss"].item() == pytest.approx(sum(rows) / len(rows))
    assert found["accuracy"].item() == share
    assert set(found) == {"loss", "accuracy"}


def test_names_as_parts_of_metric_ids():
    names = {
        "Grad-CAM": "grad_cam",
        "Grad-CAM++": "grad_campp",
        "HiRes CAM": "hires_cam",
        "true mask": "true_mask",
        "LRP-BN": "lrp_bn",
        "$R_{AB}$ alone": "r_ab_alone",
        "θ = 0.5": "theta_0_5",
        "α′ alone": "alone",
    }
    assert {name: shared.metric_key(name) for name in names} == names


# shifts and light -----------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """Let `torch.rand` return the numbers of the list that is handed in."""

    def replace(numbers):
        monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.tensor(numbers).reshape(shape))

    return replace


@pytest.mark.parametrize("fill", [None, torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1, 1)])
@pytest.mark.parametrize("reach", [0.06, 0.12, 0.3])
def test_shifted_by_a_loop_over_the_pixels(drawn, reach, fill):
    images = torch.rand(3, 2, 10, 20, generator=generator(4))
    shares = [[0.0, 1.0], [0.5, 0.5], [0.8, 0.1]]
    drawn(shares)
    found = shared.shifted(images, None, reach, fill)
    assert found.shape == images.shape
    moved = [[round((2 * s - 1) * reach * side) for s, side in zip(pair, (10, 20))] for pair in shares]
    assert moved[1] == [0, 0]
    for n, i, j in itertools.product(range(3), range(10), range(20)):
        row, column = i + moved[n][0], j + moved[n][1]
        inside = 0 <= row < 10 and 0 <= column < 20
        expected = images[n, :, min(max(row, 0), 9), min(max(column, 0), 19)]
        if not inside and fill is not None:
            expected = fill[n, 0, 0, 0].expand(2)
        assert torch.equal(found[n, :, i, j], expected), (n, i, j)


def test_shifted_draws_from_its_generator_alone_up_to_its_reach():
    images = torch.arange(40.0).expand(200, 1, 40, 40).clone()
    before = images.clone()
    found = shared.shifted(images, generator(SEED), 0.1)
    torch.manual_seed(3)
    assert torch.equal(found, shared.shifted(images, generator(SEED), 0.1))
    assert not torch.equal(found, shared.shifted(images, generator(1), 0.1))
    assert torch.equal(images, before)
    assert set((found - images)[:, 0, 20, 20].tolist()) == {-4, -3, -2, -1, 0, 1, 2, 3, 4}


@pytest.mark.parametrize("contrast", [0.3, 0.4])
def test_relit_by_a_loop_over_the_pixels(drawn, contrast):
    images = torch.rand(3, 2, 4, 5, generator=generator(5))
    mean = torch.tensor([0.5, 0.2, 0.9]).view(3, 1, 1, 1)
    change, light = [0.0, 0.5, 1.0], [0.25, 0.5, 1.0]
    drawn([change, light])
    found = shared.relit(images, mean, None, contrast)
    for place in itertools.product(range(3), range(2), range(4), range(5)):
        n, middle = place[0], mean[place[0]].item()
        value = (images[place].item() - middle) * math.exp(contrast * (2 * change[n] - 1)) + middle
        value += 0.1 * (2 * light[n] - 1)
        assert found[place].item() == pytest.approx(min(max(value, 0), 1), abs=1e-6)
    assert found.max() == 1
    torch.testing.assert_close(found[1], images[1])


# predictions and maps -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_at():
    """A network in evaluation mode, 66 images of which it says different things, and its logits."""
    torch.manual_seed(2)
    model = resnet18(3, 4, 1)
    images = torch.rand(66, 1, 64, 64, generator=generator(8)) * torch.linspace(0.1, 1, 66)[:, None, None, None]
    with torch.no_grad():
        for _ in range(20):
            model(images)  # the running means and variances become those of the images
        model.eval().fc.bias -= model(images).mean(0)
        return model, images, model(images)


def test_predictions_and_maps_of_the_predicted_class(looked_at):
    model, images, logits = looked_at
    found = shared.predict_and_explain(model, "layer3", images)
    torch.testing.assert_close(found.logits, logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.predicted, logits.argmax(1))
    assert len(found.predicted.unique()) > 1
    assert found.true_maps is None
    explainer = GradCAM(model, "layer3")
    whole = upsample(found.maps, (64, 64))
    for i in (0, 20, 64, 65):
        expected = explainer.attribute_layer(images[[i]], logits[i].argmax().item())[0]
        torch.testing.assert_close(found.maps[i], expected, atol=1e-5, rtol=1e-3)
        expected = explainer.attribute(images[[i]], logits[i].argmax().item())[0]
        torch.testing.assert_close(whole[i], expected, atol=1e-5, rtol=1e-3)
    assert found.maps.shape == (66, 4, 4)
    assert found.maps.amax() > 0


def test_maps_of_the_true_classes_are_those_of_right_predictions(looked_at):
    model, images, _ = looked_at
    labels, sizes = torch.arange(66) % 3, []
    handle = model.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    found = shared.predict_and_explain(model, "layer3", images, labels)
    handle.remove()
    right = found.predicted == labels
    assert 5 < right.sum() < 61
    assert sizes == [66, 64, 2, int((~right).sum())]  # again for the predicted class only where it is another
    explainer = GradCAM(model, "layer3")
    for i in range(66):
        expected = explainer.attribute_layer(images[[i]], labels[i].item())[0]
        torch.testing.assert_close(found.true_maps[i], expected, atol=1e-5, rtol=1e-3)
    plain = shared.predict_and_explain(model, "layer3", images)
    torch.testing.assert_close(found.maps, plain.maps, atol=1e-5, rtol=1e-3)
    assert torch.equal(found.maps[right], found.true_maps[right])
    assert not torch.equal(found.maps[~right], found.true_maps[~right])
    all_right = shared.predict_and_explain(model, "layer3", images, found.predicted)
    assert torch.equal(all_right.maps, all_right.true_maps)


# scores of errors -----------------------------------------------------------------------------------------------


def test_logistic_counts_both_answers_as_equally_frequent_and_no_column_by_its_unit():
    rng = np.random.default_rng(5)
    wrong = np.arange(60) % 6 == 0
    features = rng.random((60, 2)) + np.stack([wrong, 0 * wrong], 1)
    score = shared.logistic().fit(features, wrong).decision_function(features)
    scaled = features * [1000, 1]
    np.testing.assert_allclose(shared.logistic().fit(scaled, wrong).decision_function(scaled), score, rtol=1e-6)
    balanced = np.concatenate([np.arange(60), *[np.flatnonzero(wrong)] * 4])  # each wrong one five times: fifty
    z = (features - features.mean(0)) / features.std(0)
    plain = LogisticRegression(C=0.6).fit(z[balanced], wrong[balanced])
    np.testing.assert_allclose(plain.decision_function(z), score, rtol=1e-3, atol=1e-3)


class Fitted(StandardScaler):
    """Remembers the rows of each fit, and those that were scaled after it."""

    rows: list = []  # noqa: RUF012

    def fit(self, x, y=None, sample_weight=None):
        Fitted.rows.append([x, []])
        return super().fit(x, y)

    def transform(self, x, copy=None):
        Fitted.rows[-1][1].append(x)
        return super().transform(x)


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(15), 4)])
def test_cross_validated_score_is_of_each_image_by_a_fit_on_other_groups(monkeypatch, clusters):
    monkeypatch.setattr(shared, "StandardScaler", Fitted)
    monkeypatch.setattr(Fitted, "rows", [])
    rng = np.random.default_rng(1)
    wrong = rng.random(60) < 0.3
    scores = np.stack([rng.permutation(60), rng.random(60) + 0.4 * wrong], 1)  # the first column tells who it is
    got = shared.cross_validated_score(scores, wrong, clusters, 2**40)
    groups = np.arange(60) if clusters is None else clusters
    number = {value: i for i, value in enumerate(scores[:, 0])}
    assert len(Fitted.rows) == 5
    judged = []
    for fitted_on, (_, told) in Fitted.rows:
        learnt, asked = ([number[value] for value in x[:, 0]] for x in (fitted_on, told))
        assert not set(groups[learnt]) & set(groups[asked])
        assert sorted(learnt + asked) == list(range(60))
        judged += asked
        middle, size = scores[learnt].mean(0), scores[learnt].std(0)
        model = LogisticRegression(class_weight="balanced").fit((scores[learnt] - middle) / size, wrong[learnt])
        expected = ((scores[asked] - middle) / size) @ model.coef_[0] + model.intercept_[0]
        np.testing.assert_allclose(got[asked], expected, rtol=1e-6, atol=1e-9)
        count = np.bincount(wrong[learnt])
        weights = (len(learnt) / 2 / count)[wrong[learnt].astype(int)]
        again = LogisticRegression().fit((scores[learnt] - middle) / size, wrong[learnt], weights)
        np.testing.assert_allclose(again.coef_, model.coef_, rtol=1e-4)
    assert sorted(judged) == list(range(60))
    assert np.array_equal(shared.cross_validated_score(scores, wrong, clusters, 2**40), got)
    assert not np.array_equal(shared.cross_validated_score(scores, wrong, clusters, 1), got)


def test_cross_validated_score_finds_what_two_scores_know_only_jointly():
    rng = np.random.default_rng(3)
    wrong, common = np.arange(200) % 4 == 0, rng.normal(size=200) * 5
    got = shared.cross_validated_score(np.stack([common + wrong, common], 1), wrong, None, SEED)
    assert (got[wrong][:, None] > got[~wrong]).mean() > 0.95
    assert (common[wrong][:, None] + 1 > common[~wrong]).mean() < 0.65


@pytest.mark.parametrize(
    ("wrong", "clusters"),
    [
        ([False] * 12, None),
        ([True] * 12, None),
        ([True] + [False] * 11, None),
        ([True] * 3 + [False] * 9, "aaabbccddeef"),  # all in one group
        ([True] * 9 + [False] * 3, "aabbccddefff"),
        ([False] * 16 + [True] * 9 + [False] * 3 + [True], "a" * 10 + "b" * 15 + "c" * 4),  # a fold holds all of them
    ],
)
def test_cross_validated_score_is_none_where_nothing_can_be_learnt(wrong, clusters):
    wrong = np.array(wrong)
    scores = np.random.default_rng(0).random((len(wrong), 2))
    groups = None if clusters is None else np.array(list(clusters))
    assert shared.cross_validated_score(scores, wrong, groups, SEED) is None


def test_cross_validated_score_needs_no_more_than_two_groups_of_a_side():
    wrong = np.array([True, True, False, False, False, False])
    scores = np.random.default_rng(0).random((6, 2))
    assert shared.cross_validated_score(scores, wrong, np.array(list("abcdef")), SEED).shape == (6,)
