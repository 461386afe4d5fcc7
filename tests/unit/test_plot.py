"""What figures show is tested on the artists that they hold, not on pixels."""

from io import BytesIO

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from xai_utils import plot
from xai_utils.metrics.statistics import Estimate


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def shown(fig):
    return [np.asarray(ax.images[0].get_array()) for ax in fig.axes if ax.images]


def test_images_keep_their_order_and_share_one_grey_scale():
    pictures = torch.rand(5, 1, 4, 4)
    fig = plot.images(pictures, list("abcde"), columns=3)
    for drawn, picture, title, ax in zip(shown(fig), pictures, "abcde", fig.axes):
        np.testing.assert_allclose(drawn, picture[0])
        assert ax.get_title() == title
        assert ax.images[0].get_clim() == (0, 1)
    assert len(shown(fig)) == 5


def test_colour_images_are_drawn_with_channels_last():
    picture = torch.rand(1, 3, 4, 5)
    np.testing.assert_allclose(shown(plot.images(picture))[0], picture[0].permute(1, 2, 0))


def test_morphs_show_input_then_frames_and_outline_the_odd_ones():
    inputs, frames = torch.rand(2, 1, 3, 3), torch.rand(2, 4, 1, 3, 3)
    odd = np.array([[False, True, False, False], [False] * 4])
    fig = plot.morphs(inputs, frames, ["1 → 2", "3 → 5"], odd)
    drawn = shown(fig)
    np.testing.assert_allclose(drawn[0], inputs[0, 0])
    np.testing.assert_allclose(drawn[2], frames[0, 1, 0])
    np.testing.assert_allclose(drawn[5], inputs[1, 0])
    outlined = [ax for ax in fig.axes if ax.images and ax.spines["left"].get_visible()]
    assert [np.asarray(ax.images[0].get_array()).tolist() for ax in outlined] == [drawn[2].tolist()]


def test_signed_maps_are_centred_on_zero_and_positive_ones_start_there():
    signed, positive = torch.tensor([[-1.0, 3.0]]), torch.tensor([[0.5, 2.0]])
    fig = plot.saliency(torch.rand(1, 1, 2), {"signed": signed, "positive": positive, "flat": torch.zeros(1, 2)})
    clims = [ax.images[0].get_clim() for ax in fig.axes[1:4]]
    assert clims == [(-3, 3), (0, 2), (0, 1)]
    assert fig.axes[1].images[0].get_cmap().name == plot.DIVERGING


def test_a_banner_stands_above_the_maps_and_nothing_stands_above_those_of_a_good_network():
    fig = plot.saliency(torch.rand(1, 4, 4), {"map": torch.rand(4, 4)})
    before = list(fig.texts)
    assert plot.banner(fig, "") is fig
    assert fig.texts == before
    said = "This network has not learned its task (accuracy is 0.3 on test images, it needs 0.45): its maps say little."
    assert plot.banner(fig, said) is fig
    (text,) = (text for text in fig.texts if text not in before)
    assert text.get_text().replace("\n", " ") == said
    assert text.get_bbox_patch().get_facecolor() == matplotlib.colors.to_rgba(plot.ACCENT)
    fig.canvas.draw()
    strip, whole = text.get_window_extent(), fig.bbox
    assert strip.y0 >= whole.y1  # above the figure, not over a map
    assert whole.x0 <= strip.x0 < strip.x1 <= whole.x1


def test_history_draws_both_curves_and_the_best_epoch():
    table = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.0, 2.0]})
    table.attrs["best_epoch"] = 2
    ax = plot.history(table).axes[0]
    train, val, best = ax.lines
    assert train.get_ydata().tolist() == [3, 2, 1]
    assert val.get_ydata().tolist() == [3, 1, 2]
    assert best.get_xdata() == [2, 2]


def test_latent_path_projects_codes_and_path_by_the_same_axes():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 4)) * [5, 2, 0.1, 0.1]
    fig = plot.latent_path(codes, np.arange(50) % 3, {"path": codes[:7]})
    points = fig.axes[0].collections[0].get_offsets()
    line = fig.axes[0].lines[0]
    np.testing.assert_allclose(np.stack([line.get_xdata(), line.get_ydata()], 1), points[:7], atol=1e-9)
    assert points[:, 0].std() > points[:, 1].std()


def test_a_row_more_or_less_does_not_change_the_size_of_distributions():
    rows = {"a": [1.0, 2.0], "b": [4.0], "c": [3.0, 5.0], "d": [0.0], "e": [1.0]}
    figures = [plot.distributions(dict(list(rows.items())[:n]), "distance") for n in (2, 3, 4, 5)]
    two, three, four, five = (tuple(fig.get_size_inches()) for fig in figures)
    assert two == three == four  # which rows there are depends on the network
    assert five > four


def test_distributions_show_every_value():
    fig = plot.distributions({"a": [1.0, 2.0, 3.0], "b": [4.0]}, "distance", bound=1.0)
    dots = [c.get_offsets()[:, 0].tolist() for c in fig.axes[0].collections]
    assert dots == [[1, 2, 3], [4]]


def test_flow_draws_every_box_and_arrow():
    fig = plot.flow({"a": (0, 0, "one"), "b": (1, 0, "two")}, [("a", "b", "to")])
    assert [t.get_text() for t in fig.axes[0].texts] == ["one", "two", "to"]
    assert len(fig.axes[0].patches) == 3


def test_the_slider_shows_the_frame_it_stands_on():
    frames = torch.linspace(0, 1, 3)[:, None, None, None].expand(3, 1, 4, 4)
    box = plot.morph_slider(frames, ["first", "second", "third"], size=8)
    slider, image, caption = box.children
    first = image.value
    slider.value = 2
    assert caption.value == "third"
    assert image.value != first
    slider.value = 0
    assert image.value == first
    assert caption.value == "first"


def test_no_figure_is_left_open_by_looking_at_one(tmp_path):
    fig = plot.images(torch.rand(2, 1, 4, 4))
    fig.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 500


def test_a_saliency_table_has_one_row_per_method_each_map_on_its_own_scale():
    pictures = torch.rand(2, 1, 4, 4)
    maps = {"RAM": torch.randn(2, 4, 4), "zero": torch.zeros(2, 4, 4)}
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    fig = plot.saliency_table(pictures, maps, ["a", "b"], "title", masks)
    drawn = [ax for ax in fig.axes if ax.images]
    np.testing.assert_allclose(drawn[0].images[0].get_array(), pictures[0, 0])
    largest = np.quantile(maps["RAM"][1].abs(), 0.995)
    np.testing.assert_allclose(drawn[3].images[0].get_array(), maps["RAM"][1] / largest, rtol=1e-6)
    assert {ax.images[0].get_clim() for ax in drawn[2:]} == {(-1, 1)}
    assert {ax.images[0].get_cmap().name for ax in drawn[2:]} == {plot.DIVERGING}
    assert [ax.get_title() for ax in drawn[:2]] == ["a", "b"]
    assert [drawn[i].get_ylabel() for i in (0, 2, 4)] == ["image", "RAM", "zero"]
    assert [len(ax.collections) for ax in drawn] == [1, 1, 0, 0, 0, 0]  # the outlines, on the images


def test_the_maps_of_one_image_can_share_a_scale():
    maps = {"up": torch.full((2, 4, 4), 3.0), "sum": torch.stack([torch.full((4, 4), -1.0), torch.full((4, 4), 6.0)])}
    fig = plot.saliency_table(torch.rand(2, 1, 4, 4), maps, together=True)
    drawn = [ax.images[0].get_array()[0, 0] for ax in fig.axes[2:6]]
    assert drawn == pytest.approx([1, 0.5, -1 / 3, 1])


def test_one_bright_pixel_does_not_make_a_map_white():
    values = torch.ones(1, 32, 32)
    values[0, 0, 0] = 100.0
    fig = plot.saliency_table(torch.rand(1, 1, 32, 32), {"noisy": values})
    assert fig.axes[1].images[0].get_array()[5, 5] == 1


def test_tiles_are_pictures_and_maps_a_row_each():
    pictures, maps = torch.rand(3, 1, 10, 10), torch.randn(2, 10, 10)
    masks = torch.zeros(3, 10, 10, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True  # the others have no defect
    fig = plot.tiles({"image": pictures, "LRP": maps, "none": -torch.ones(1, 10, 10)}, ["a", "b", "c"], "title", masks)
    drawn = [ax for ax in fig.axes if ax.images]
    np.testing.assert_allclose(drawn[1].images[0].get_array(), pictures[1, 0])
    positive = maps[1].clamp(min=0).numpy()
    np.testing.assert_allclose(drawn[4].images[-1].get_array(), positive / np.quantile(positive, 0.99), rtol=1e-5)
    assert drawn[5].images[-1].get_array().max() == 0
    assert {(ax.images[-1].get_cmap().name, ax.images[-1].get_clim()) for ax in drawn[3:]} == {("magma", (0, 1))}
    assert [len(ax.collections) for ax in drawn] == [1, 0, 0, 0, 0, 0]  # outlines: on pictures alone
    assert [ax.get_title() for ax in drawn[:3]] == ["a", "b", "c"]
    assert [drawn[i].get_ylabel() for i in (0, 3, 5)] == ["image", "LRP", "none"]
    assert [ax.axison for ax in fig.axes[:9]] == [True] * 5 + [False, True, False, False]
    assert len(fig.axes) == 10  # and the colour bar, which pictures alone have not
    assert len(plot.tiles({"normal": pictures, "crack": pictures}).axes) == 6


def test_a_map_of_few_pixels_is_scaled_by_its_maximum():
    spot = torch.zeros(1, 30, 30)
    spot[0, 3, 4] = 5
    drawn = plot.tiles({"LIME": spot}).axes[0].images[-1].get_array()
    assert (drawn.max(), drawn.sum()) == (1, 1)


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (5, 3), (3, 9)])
def test_a_tile_has_a_hundred_pixels(n, rows):
    plot.use_style(dpi=100)
    fig = plot.tiles({str(i): torch.rand(n, 8, 8) for i in range(rows)}, ["a\nb"] * n, "title")
    fig.canvas.draw()
    sizes = [(ax.bbox.width, ax.bbox.height) for ax in fig.axes[: n * rows]]
    np.testing.assert_allclose(sizes, 104, atol=0.6)


def test_overlays_lay_the_positive_part_of_each_map_over_its_image():
    pictures = torch.rand(2, 1, 4, 4)
    maps = {"correct class": torch.randn(2, 4, 4), "zero": -torch.ones(2, 4, 4)}
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True  # the second image has no defect
    fig = plot.overlays(pictures, maps, ["a", "b"], "title", masks)
    drawn = [ax for ax in fig.axes if ax.images]
    assert [len(ax.images) for ax in drawn] == [1, 1, 2, 2, 2, 2]
    for ax, i in zip(drawn, (0, 1, 0, 1, 0, 1)):
        np.testing.assert_allclose(ax.images[0].get_array(), pictures[i, 0])
    expected = maps["correct class"][1].clamp(min=0).numpy()
    np.testing.assert_allclose(drawn[3].images[1].get_array(), expected / np.quantile(expected, 0.99), rtol=1e-5)
    assert drawn[4].images[1].get_array().max() == 0
    assert {(ax.images[1].get_cmap().name, ax.images[1].get_clim()) for ax in drawn[2:]} == {("jet", (0, 1))}
    assert [ax.get_title() for ax in drawn[:2]] == ["a", "b"]
    assert [drawn[i].get_ylabel() for i in (0, 2, 4)] == ["image", "correct class", "zero"]
    assert [len(ax.collections) for ax in drawn] == [1, 0, 0, 0, 0, 0]  # the outlines


def test_curves_draw_means_bands_and_references():
    x = torch.linspace(0, 1, 3)
    values = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0], [0.0, 5.0, 12.0]])
    panels = {"one": {"RAM": values, "uniform": values[:1]}, "two": {"RAM": values}}
    fig = plot.curves(x, panels, ("r", "accuracy"))
    first, second = fig.axes
    assert [line.get_ydata().tolist() for line in first.lines] == [[0, 3, 6], [0, 1, 2]]
    assert [line.get_label() for line in first.lines] == ["RAM", "uniform"]
    (band,) = first.collections
    assert band.get_paths()[0].get_extents().ymax == 8  # three quarters of the way from 4 to 12
    assert (first.get_title(), second.get_title(), first.get_ylabel()) == ("one", "two", "accuracy")


def test_agreement_draws_every_image_and_the_diagonal():
    truth, predicted = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.5, 0.1, 0.8])
    ax = plot.agreement(truth, predicted, ("target", "prediction")).axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[-1.5, -1.5], [1.0, 1.0]]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.stack([truth, predicted], 1))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "prediction")


def test_japanese_class_names_are_drawn_without_a_warning(recwarn):
    plot.use_style()
    fig = plot.images(np.zeros((2, 8, 8)), ["重心", "顕著量マップ α′"], title="判断根拠")
    fig.savefig(BytesIO(), format="png")
    assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []
    assert plt.rcParams["font.family"][0] == "DejaVu Sans"  # figures without Japanese stay as they were


def test_intervals_are_drawn_from_end_to_end_and_what_is_not_defined_says_so():
    gone = Estimate(None, 2, note="too few")
    panels = {
        "AUROC": {"map": Estimate(0.6, 90, 0.5, 0.7), "confidence": gone},
        "gain": {"both": Estimate(-0.1, 80, -0.3, 0.2)},
    }
    fig = plot.intervals(panels, [0.5, 0], "title")
    first, second = fig.axes
    reference, *drawn = [line.get_xydata().tolist() for line in first.lines]
    assert [x for x, _ in reference] == [0.5, 0.5]
    assert drawn == [[[0.5, 0], [0.7, 0]], [[0.6, 0]]]  # from end to end, and the value
    assert [(text.get_text(), text.get_position()) for text in first.texts] == [
        (" not defined: too few images", (0.5, 1))
    ]
    assert [label.get_text() for label in first.get_yticklabels()] == ["map (n = 90)", "confidence (n = 2)"]
    assert (first.get_xlabel(), second.get_xlabel(), fig.get_suptitle()) == ("AUROC", "gain", "title")
    assert second.lines[0].get_xydata()[:, 0].tolist() == [0, 0]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first row stands above
    with pytest.raises(ValueError, match="argument"):
        plot.intervals(panels, [0.5])
