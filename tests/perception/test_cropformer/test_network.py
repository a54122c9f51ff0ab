# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The network agrees with the public code, part by part and whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core.perception.cropformer import hornet, network, pixel_decoder, positions  # noqa: E402
from seg3d_core.perception.cropformer.images import network_input, resize_image, views_of  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def filled(module: torch.nn.Module, prefix: str, recipe) -> torch.nn.Module:
    state = recipe.state({n: tuple(t.shape) for n, t in module.state_dict().items()}, prefix)
    module.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()})
    return module.eval()


def close(found: torch.Tensor, wanted: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=tolerance)


RECIPE_CHECKS = (
    ("backbone.downsample_layers.0.0.weight", (16, 3, 4, 4), 0.186585, -2.4004767),
    ("backbone.stages.0.0.gamma1", (16,), 0.5533713, 7.9306321),
    ("backbone.stages.2.0.gnconv.dwconv.complex_weight", (60, 24, 13, 2), -1.038062, 319.37823),
    ("backbone.stages.2.0.gnconv.dwconv.dw.weight", (60, 1, 3, 3), -0.05505169, 5.9725443),
    ("backbone.stages.0.0.gnconv.proj_in.weight", (32, 16, 1, 1), -0.1724328, -2.5443001),
    ("sem_seg_head.predictor.class_embed.weight", (2, 64), -0.4598363, -5.3772141),
    ("sem_seg_head.predictor.transformer_ffn_layers.0.linear2.weight", (64, 96), 0.01539178, -12.275838),
)


@pytest.mark.parametrize(("name", "shape", "first", "total"), RECIPE_CHECKS)
def test_the_recipe_gives_the_weights_that_the_public_code_ran_with(recipe, name, shape, first, total) -> None:
    tensor = recipe.weight(name, shape)
    assert tensor.flat[0] == pytest.approx(first, rel=1e-6)
    assert float(tensor.sum(dtype=np.float64)) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(
    ("tag", "shape"),
    [("same", (1, 16, 24, 24)), ("wider", (2, 16, 9, 15)), ("odd", (2, 16, 5, 7)), ("even", (2, 16, 6, 10))],
)
def test_global_local_filter(golden, recipe, tag, shape) -> None:
    module = filled(hornet.GlobalLocalFilter(16, (24, 13)), "c:gf.", recipe)
    x = torch.from_numpy(recipe.feats(f"c:gf:{tag}", shape))
    for _ in range(2):
        close(module(x), golden("c_parts")[f"gf_out_{tag}"], 1e-5)


def test_a_kept_filter_is_not_taken_for_another_size_or_other_weights(golden, recipe) -> None:
    module = filled(hornet.GlobalLocalFilter(16, (24, 13)), "c:gf.", recipe).requires_grad_(False)
    x = {tag: torch.from_numpy(recipe.feats(f"c:gf:{tag}", (2, 16, *size))) for tag, size in SIZES}
    for tag in ("odd", "even", "even", "odd"):
        close(module(x[tag]), golden("c_parts")[f"gf_out_{tag}"], 1e-5)
    before = module(x["odd"])
    module.complex_weight.mul_(2)
    assert not torch.allclose(module(x["odd"]), before, atol=1e-3)


SIZES = (("odd", (5, 7)), ("even", (6, 10)))


def test_weights_made_in_inference_mode_serve_too(golden, recipe) -> None:
    with torch.inference_mode():
        module = filled(hornet.GlobalLocalFilter(16, (24, 13)).requires_grad_(False), "c:gf.", recipe)
        close(module(torch.from_numpy(recipe.feats("c:gf:odd", (2, 16, 5, 7)))), golden("c_parts")["gf_out_odd"], 1e-5)


@pytest.mark.parametrize(("order", "filter_size"), [(2, None), (5, (12, 7))])
def test_gated_convolution(golden, recipe, order, filter_size) -> None:
    module = filled(hornet.GatedConvolution(64, order, filter_size), f"c:gnconv{order}.", recipe)
    x = torch.from_numpy(recipe.feats(f"c:gnconv{order}:x", (1, 64, 6, 9)))
    close(module(x), golden("c_parts")[f"gnconv{order}_out"], 1e-5)


def test_block(golden, recipe) -> None:
    module = filled(hornet.Block(32, 3, None), "c:block.", recipe)
    close(module(torch.from_numpy(recipe.feats("c:block:x", (1, 32, 7, 5)))), golden("c_parts")["block_out"], 1e-5)


def test_position_codes(golden) -> None:
    parts, cpu = golden("c_parts"), torch.device("cpu")
    close(positions.plane_code(3, 5, 16, cpu).T.reshape(1, 16, 3, 5), parts["pe2d"], 1e-5)
    plane = positions.plane_code(3, 4, 16, cpu).T.reshape(1, 16, 3, 4).expand(5, -1, -1, -1)
    close(plane, parts["pe3d_2d"], 1e-5)
    views = positions.view_code(5, 3, 4, 16, cpu).view(1, 5, 3, 4, 16).permute(0, 1, 4, 2, 3)
    close(views, parts["pe3d_3d"], 1e-5)


def test_deformable_attention(golden, recipe) -> None:
    parts, sizes = golden("c_parts"), ((3, 4), (5, 8), (9, 15))
    module = filled(pixel_decoder.DeformableAttention(64), "c:msda.", recipe)
    query, value = (torch.from_numpy(recipe.feats(f"c:msda:{n}", (1, 187, 64))) for n in ("query", "value"))
    reference = positions.reference_points(sizes, torch.device("cpu"))
    close(reference[None, :, None].expand(1, -1, 3, -1), parts["msda_reference"], 1e-5)
    close(module(query, value, sizes), parts["msda_out"], 1e-5)


class Trace:
    """What passes through the decoder's layers and heads, by hooks."""

    def __init__(self, decoder: torch.nn.Module):
        self.decoder, self.layers, self.blocked, self.normed, self.start = decoder, [], [], [], None
        handles = [layer.register_forward_hook(self._layer) for layer in decoder.transformer_ffn_layers]
        for layer in decoder.transformer_cross_attention_layers:
            handles.append(layer.register_forward_pre_hook(lambda _, inputs: self.blocked.append(inputs[4])))
        handles.append(decoder.decoder_norm.register_forward_hook(lambda _, __, out: self.normed.append(out)))
        self._handles = handles

    def _layer(self, _module, _inputs, output: torch.Tensor) -> None:
        self.layers.append(output)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def logits(self, step: int) -> torch.Tensor:
        y = self.normed[step]
        return self.decoder.class_embed(y)

    def vectors(self, step: int) -> torch.Tensor:
        return self.decoder.mask_embed(self.normed[step])


def opened(blocked: np.ndarray) -> np.ndarray:
    return blocked & ~blocked.all(-1, keepdims=True)


def test_fully_blocked_queries_see_everything(golden, recipe, reduced) -> None:
    parts, decoder = golden("c_parts"), reduced("mask2former").sem_seg_head.predictor
    levels = [torch.from_numpy(recipe.feats(f"c:edge:level{i}", (1, 64, 3 * 2**i, 4 * 2**i))) for i in range(3)]
    features = recipe.feats("c:edge:mask_offset", (1, 32, 1, 1), 3) + recipe.feats(
        "c:edge:mask_features", (1, 32, 24, 32), 0.5
    )
    with Trace(decoder) as trace:
        found = decoder(torch.from_numpy(features), levels)
    for i in range(5):
        close(trace.logits(i).reshape(1, 17, 2), parts[f"edge_head{i}_logits"], 1e-4)
    for i in range(4):
        open_rows = ~trace.blocked[i][0].any(-1).numpy()
        assert open_rows[parts[f"edge_head{i}_rows_all_blocked"]].all()
    close(found.mask_logits(slice(0, 4))[:, 0], parts["edge_masks"], 1e-4)


def test_an_image_through_the_plain_mask2former(golden_images, reduced, bits: Callable) -> None:
    g, net = golden_images, reduced("mask2former")
    rgb = g["image_bgr"][:, :, ::-1]
    views = views_of(rgb, crops=False, short_side=160)
    assert np.array_equal(resize_image(rgb, views[0].size).transpose(2, 0, 1), g["resized_rgb"])
    x = network_input(rgb, views)
    assert tuple(x.shape) == tuple(g["net_input_shape"])
    maps = net.backbone(x)
    for i, found in enumerate(maps):
        close(found, g[f"backbone_res{i + 2}"], 1e-4)
    first = []
    handle = net.sem_seg_head.pixel_decoder.transformer.encoder.layers[0].register_forward_hook(
        lambda _, __, out: first.append(out)
    )
    features, levels = net.sem_seg_head.pixel_decoder(maps)
    handle.remove()
    close(first[0], g["pixel_encoder_layer0"], 1e-4)
    close(features, g["pixel_mask_features"], 1e-4)
    for i, found in enumerate(levels):
        close(found, g[f"pixel_level{i}"], 1e-4)
    with Trace(net.sem_seg_head.predictor) as trace:
        out = net.sem_seg_head.predictor(features, levels)
    for i in range(5):
        close(trace.logits(i).reshape(1, 17, 2), g[f"head{i}_logits"], 1e-4)
    for i in range(4):
        close(trace.layers[i].transpose(0, 1), g[f"decoder_layer{i}"], 1e-4)
        blocked = bits(g[f"head{i}_blocked_bits"], trace.blocked[i].shape[-1])
        assert np.array_equal(trace.blocked[i].numpy(), opened(blocked))
    for i in (0, 1):
        close(torch.einsum("bqc,bchw->bqhw", trace.vectors(i), features), g[f"head{i}_masks"], 1e-4)
    close(out.mask_logits().transpose(0, 1), g["head4_masks"], 1e-4)


def test_an_image_and_its_crops_through_cropformer(golden, reduced, bits: Callable) -> None:
    g, net = golden("b_cropformer"), reduced("cropformer")
    rgb = g["image_bgr"][:, :, ::-1]
    views = views_of(rgb, crops=True, short_side=96)
    assert [v.box for v in views[1:]] == [tuple(box) for box in g["crop_region"]]
    pictures = [resize_image(rgb[y0:y1, x0:x1], v.size) for v in views for x0, y0, x1, y1 in [v.box]]
    assert np.array_equal(pictures[0].transpose(2, 0, 1), g["full_rgb"])
    assert np.array_equal(np.stack(pictures[1:]).transpose(0, 3, 1, 2), g["crops_rgb"])
    x = network_input(rgb, views)
    assert tuple(x.shape) == tuple(g["net_input_shape"])
    maps = net.backbone(x)
    close(maps[3], g["backbone_res5"], 1e-4)
    features, levels = net.sem_seg_head.pixel_decoder(maps)
    close(features[3], g["pixel_mask_features_view3"], 1e-4)
    decoder, seen = net.sem_seg_head.predictor, {}
    handles = [
        decoder.make_3d.register_forward_hook(lambda _, i, out: seen.update(flat=i[0], start=out)),
        decoder.make_3d.enc_crosattn_3d[0].register_forward_hook(lambda _, __, out: seen.update(cross=out)),
    ]
    with Trace(decoder) as trace:
        out = decoder(features, levels)
    for handle in handles:
        handle.remove()
    close(seen["flat"].transpose(0, 1), g["queries_2d"], 1e-4)
    y = decoder.decoder_norm(seen["flat"])
    close(decoder.class_embed(y), g["logits_2d"], 1e-4)
    masks_2d = torch.einsum("vqc,vchw->vqhw", decoder.mask_embed(y), features)
    for view in (0, 3):
        close(masks_2d[view], g[f"masks_2d_view{view}"], 1e-4)
    close(seen["cross"].transpose(0, 1), g["association_cross"], 1e-4)
    close(seen["start"].transpose(0, 1), g["queries_3d_start"], 1e-4)
    for i in range(4):
        close(trace.layers[4 + i].transpose(0, 1), g[f"decoder3d_layer{i}"], 1e-4)
        blocked = trace.blocked[4 + i][0].numpy()
        assert np.array_equal(blocked, opened(bits(g[f"head3d{i}_blocked_bits"], blocked.shape[-1])))
    for i in range(5):
        close(trace.logits(4 + i).reshape(1, 17, 2), g[f"head3d{i}_logits"], 1e-4)
    close(torch.einsum("qc,chw->qhw", trace.vectors(4)[0], features[1]), g["head3d0_masks_view1"], 1e-4)
    close(out.mask_logits(), g["masks_3d"], 1e-4)
    close(out.class_logits[None], g["head3d4_logits"], 1e-4)


@pytest.mark.parametrize(
    "model",
    ["mask2former_hornet_3x", "cropformer_hornet_3x", "reduced_mask2former_hornet", "reduced_cropformer_hornet"],
)
def test_names_and_shapes_are_the_published_ones(models, model) -> None:
    shapes = models[model]
    with torch.device("meta"):
        net = network.EntityNetwork(network.NetworkShape.of(shapes))
    assert {n: tuple(t.shape) for n, t in net.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("model", "width", "depths", "heads", "parameters"),
    [
        ("mask2former_swin_tiny_3x", 96, (2, 2, 6, 2), (3, 6, 12, 24), 47_401_340),
        ("cropformer_swin_tiny_3x", 96, (2, 2, 6, 2), (3, 6, 12, 24), 48_980_092),
        ("mask2former_swin_large_3x", 192, (2, 2, 18, 2), (6, 12, 24, 48), 215_247_446),
        ("cropformer_swin_large_3x", 192, (2, 2, 18, 2), (6, 12, 24, 48), 216_826_198),
    ],
)
def test_the_swin_models_have_the_published_heads_and_sizes(models, model, width, depths, heads, parameters) -> None:
    with torch.device("meta"):
        shape = network.NetworkShape(
            network.SwinShape(width, depths, heads), queries=100, associates=model.startswith("cropformer")
        )
        net = network.EntityNetwork(shape)
    state = {n: tuple(t.shape) for n, t in net.state_dict().items()}
    assert {n: s for n, s in state.items() if not n.startswith("backbone.")} == models[model]
    assert sum(int(np.prod(s)) for s in state.values()) == parameters
    assert network.NetworkShape.of(state) == shape


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mask2former", "cropformer"])
def test_the_full_size_networks_agree(golden, recipe, models, model) -> None:
    from seg3d_core.perception.cropformer.checkpoint import network_of
    from seg3d_core.perception.cropformer.images import View

    g = golden("e_fullsize")
    net = network_of(recipe.state(models[f"{model}_hornet_3x"]), model)
    pictures = g["views_rgb"][: 1 if model == "mask2former" else 5]
    view = View((0, 0, 60, 32), (32, 60))
    x = torch.cat([network_input(picture, [view]) for picture in pictures])
    assert x.shape[2:] == (32, 64)
    maps = net.backbone(x)
    features, levels = net.sem_seg_head.pixel_decoder(maps)
    decoder, flat = net.sem_seg_head.predictor, []
    if model == "cropformer":
        decoder.make_3d.register_forward_hook(lambda _, inputs, __: flat.append(inputs[0]))
    out = decoder(features, levels)
    if model == "mask2former":
        close(maps[0][0, :32], g["m2f_res2_ch0_32"], 2e-4)
        close(maps[3][0], g["m2f_res5"], 2e-4)
        for i in (1, 2):
            close(maps[i][0].mean((1, 2)), g[f"m2f_res{i + 2}_mean"], 2e-4)
        close(features[0, :8], g["m2f_mask_features_ch0_8"], 2e-4)
        close(out.class_logits, g["m2f_logits"], 2e-4)
        close(out.mask_logits(slice(0, 60))[:, 0], g["m2f_masks_q0_60"], 2e-4)
        return
    close(out.class_logits, g["crop_logits"], 2e-4)
    close(out.mask_logits(slice(0, 30)), g["crop_masks_q0_30"], 2e-4)
    y = decoder.decoder_norm(flat[0])
    close(decoder.class_embed(y), g["crop_logits_2d"], 2e-4)
    masks = torch.einsum("qc,chw->qhw", decoder.mask_embed(y[2, :30]), features[2])
    close(masks, g["crop_masks_2d_view2_q0_30"], 2e-4)
