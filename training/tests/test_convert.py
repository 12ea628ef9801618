# SPDX-License-Identifier: Apache-2.0
"""Converters: what is refused without being run, Karlo's original names, int8, LoRA, whole directories."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip_training.convert import Refused, command, pickles, precision
from unclip_training.convert.folders import shards

Tensors = dict[str, Tensor]


def run(*arguments: object) -> argparse.Namespace:
    options = command.parser().parse_args([str(argument) for argument in arguments])
    command.convert(options)
    return options


def refusal(*arguments: object) -> str:
    with pytest.raises(Refused) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bits(value: Tensor) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def same(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype and value.shape == right[name].shape, name
        assert bits(value) == bits(right[name]), name


def some_tensors() -> Tensors:
    torch.manual_seed(1)
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    out = {f"of.{str(kind)[6:]}": torch.randn(3, 5).to(kind) for kind in kinds}
    out |= {"ids": torch.arange(7), "flags": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}
    return out


# --- files of torch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", (True, False))
def test_reads_what_torch_wrote(tmp_path: Path, zipped: bool) -> None:
    tensors = some_tensors()
    torch.save(tensors, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    run(tmp_path / "a.bin", tmp_path / "a.safetensors")
    same(load_file(tmp_path / "a.safetensors"), tensors)


@pytest.mark.parametrize("zipped", (True, False))
def test_reads_views_shared_weights_and_parameters(tmp_path: Path, zipped: bool) -> None:
    layer = nn.Linear(6, 4)
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(a=whole.T, b=whole[1:3, 2:], c=whole, w=layer.weight, tied=layer.weight, none=None, step=3)
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    run(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    expected = {name: value.detach() for name, value in tensors.items() if isinstance(value, Tensor)}
    same(load_file(tmp_path / "a.safetensors"), expected)


def test_state_dict_of_a_module_has_metadata(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    torch.save(state, tmp_path / "a.pt")
    same(pickles.load(tmp_path / "a.pt"), dict(state))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", (True, False))
def test_a_program_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"weight": torch.ones(2), "evil": Evil(tmp_path / "was-run")}
    torch.save(content, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")
    assert f"{os.system.__module__}.system" in text and "a.bin" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


@pytest.mark.parametrize("name", ("builtins.eval", "a\tline.eval", "builtins.getattr", "torch.load", "torch.hub.load", "collections.Counter"))
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    module, function = name.rsplit(".", 1)
    program = f"c{module}\n{function}\n(S'1'\ntR.".encode()
    with_program(tmp_path / "a.bin", program)
    assert name.replace("\t", "?") in refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")
    stacked = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, function)) + b"\x93)R."
    with_program(tmp_path / "a.bin", stacked)
    assert name.replace("\t", "?") in refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")


def with_program(path: Path, program: bytes, **records: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, value in records.items():
            archive.writestr(f"archive/data/{name}", value)


GLOBAL_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor_program(count: int, offset: int, shape: tuple, stride: tuple, extra: bytes = b"") -> bytes:
    """A table of one tensor over storage "0", by hand."""
    def number(value: int) -> bytes:
        return f"I{value}\n".encode()

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n" + number(count) + b"tQ"
    tensor = GLOBAL_TENSOR + b"(" + storage + number(offset) + numbers(shape) + numbers(stride) + b"I00\n}tR"
    return b"}S'w'\n" + tensor + extra + b"s."


def test_a_program_by_hand_is_read(tmp_path: Path) -> None:
    with_program(tmp_path / "a.bin", tensor_program(4, 1, (3,), (1,)), **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert pickles.load(tmp_path / "a.bin")["w"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "numbers, said",
    (
        ((8, 0, (8,), (1,)), "its storage of 8 float32 has 16 bytes"),
        ((4, 0, (5,), (1,)), "reaches beyond its storage of 4"),
        ((4, 2, (3,), (1,)), "reaches beyond"),
        ((4, 0, (2, 2), (2, 3)), "reaches beyond"),
        ((4, 0, (-1,), (1,)), "something else than a storage and whole numbers"),
        ((4, 0, (2,), (-1,)), "something else than"),
        ((4, 0, (1 << 70,), (0,)), "something else than"),
        ((4, 0, (1 << 40, 1 << 40), (0, 0)), "its tensors would take"),
        ((4, 0, (2, 2), (1,)), "2 dimensions and 1 strides"),
        ((4, 0, (1,) * 7, (1,) * 7), "7 dimensions"),
    ),
)
def test_tensors_outside_their_storage(tmp_path: Path, numbers: tuple, said: str) -> None:
    with_program(tmp_path / "a.bin", tensor_program(*numbers), **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert said in refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "program, said",
    (
        (b"", "damaged"), (b"garbage", "damaged"), (b"}.", "holds no table of tensors"), (b"(lp0\n.", "holds no table"),
        (b"(d" + b"S'x'\nS'y'\ns.", "it has 'x'"), (b"Nr\xff\xff\xff\x7f.", "out of order"),
        (GLOBAL_TENSOR + b"S'a'\nI1\ns.", "damaged"),  # an item set on what is no table
        (GLOBAL_TENSOR + b"(NI1\n(t(ttR.", "something else than"), (b"S'x'\nQ.", "storage in an unknown way"),
        (b"}I1\n" + tensor_program(4, 0, (1,), (1,))[6:], "whose name is no text"),
        (tensor_program(4, 0, (1,), (1,), extra=b"}b"), None),  # BUILD changes nothing
        (b"ctorch._utils\n_rebuild_tensor_v2\n}S'__class__'\nI1\nsb.", "holds no table"),
    ),
)
def test_damaged_programs(tmp_path: Path, program: bytes, said: str | None) -> None:
    with_program(tmp_path / "a.bin", program, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    if said is None:
        assert pickles.load(tmp_path / "a.bin")["w"].tolist() == [1]
    else:
        assert said in refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")


def nested(depth: int) -> bytes:
    return b")" + b"\x85" * depth


@pytest.mark.parametrize(
    "program, said",
    (
        (b"}" + nested(1 << 17) + b"I1\ns.", "keys are neither text nor numbers"),
        (b"}(" + nested(1 << 17) + b"I1\nu.", "keys are neither"), (b"(" + nested(1 << 17) + b"I1\nd.", "keys are neither"),
        (b"ccollections\nOrderedDict\n((" + nested(1 << 17) + b"ltR.", "something else than pairs"),
        (b"ccollections\nOrderedDict\n(((" + nested(1 << 17) + b"I1\ntltR.", "keys are neither"),
        (nested(1 << 17) + b".", "holds no table"), (b"N" + b"2\x86" * 60 + b".", "the instruction DUP"),
        (b")" + b"".join(b"q%ch%c\x86" % (at, at) for at in range(60)) + b"I1\n}\x87.", "holds no table"),
        (b"(" + b"I1\n" * 50_000 + b"tq\x000" + b"", "the instruction POP"),
        (b"(" + b"I1\n" * 50_000 + b"tq\x00" + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 1000 + b".", "copies more than"),
        (GLOBAL_TENSOR + b"(NI0\n(" + b"I1\n" * 50_000 + b"t)tR.", "50000 dimensions"),
        (b"I1\nq\x00" + b"ctorch\nSize\n(" + b"h\x00" * 9 + b"tR.", "damaged"), (b"\x86.", "damaged"), (b"t.", "damaged"),
        (tensor_program(4, 0, (0, 1 << 61, 1 << 61), (1, 1, 1)), "damaged"),
    ),
)
def test_programs_that_would_never_end(tmp_path: Path, program: bytes, said: str) -> None:
    with_program(tmp_path / "a.bin", program, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert said in refusal(tmp_path / "a.bin", tmp_path / "a.safetensors")


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_reads_what_a_training_run_saves(tmp_path: Path, protocol: int) -> None:
    layer = nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(6)).sum().backward()
    optimizer.step()
    state = {"state_dict": layer.state_dict(), "optimizer": optimizer.state_dict(), "best": -0.5, "size": torch.Size([4, 6]),
             "large": 1 << 70, "done": True, "log": [("a", 1), {}, (), None]}
    torch.save(state, tmp_path / "a.ckpt", pickle_protocol=protocol)
    same(pickles.load(tmp_path / "a.ckpt"), dict(layer.state_dict()))


def test_damaged_archives(tmp_path: Path) -> None:
    path, out = tmp_path / "a.bin", tmp_path / "a.safetensors"
    torch.save(some_tensors(), path)
    whole = path.read_bytes()
    for size in (5, len(whole) // 3, len(whole) - 30):
        path.write_bytes(whole[:size])
        assert "cut short?" in refusal(path, out)
    path.write_bytes(b"")
    assert "is empty" in refusal(path, out)
    path.write_bytes(b"not a file of torch at all")
    assert "damaged" in refusal(path, out)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 1000)
    assert "is compressed, which torch never does" in refusal(path, out)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")
    assert "it has no data.pkl" in refusal(path, out)
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert "TorchScript" in refusal(path, out)
    assert not out.exists()


def test_damaged_legacy_files(tmp_path: Path) -> None:
    path, out = tmp_path / "a.bin", tmp_path / "a.safetensors"
    torch.save({"w": torch.arange(100.0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for size in (8, 20, 60, 200, len(whole) - 4):
        path.write_bytes(whole[:size])
        refusal(path, out)
    place = len(whole) - 408  # the storage's count
    path.write_bytes(whole[:place] + struct.pack("<q", 1 << 61) + whole[place + 8 :])
    assert "cut short?" in refusal(path, out)
    path.write_bytes(whole[:place] + struct.pack("<q", 99) + whole[place + 8 :])
    assert "its storage of 100 float32 has 396 bytes" in refusal(path, out)


@pytest.mark.parametrize("zipped", (True, False))
def test_changed_bytes_are_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    """Nothing but Refused comes out, with one line."""
    random = Random(1)
    path = tmp_path / "a.bin"
    torch.save({"w": torch.randn(3, 4), "b": torch.arange(5)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(random.choice((1, 1, 3))):
            at = random.randrange(len(changed))
            changed[at : at + random.choice((1, 1, 0, 4))] = random.randbytes(random.choice((1, 1, 4, 0)))
        path.write_bytes(changed)
        try:
            for value in pickles.load(path).values():
                value.clone()
        except Refused as error:
            assert str(error).isprintable()


# --- Karlo's original names ----------------------------------------------------------------------------------------

HEAD, DECODER_HEAD, EMBEDDING, CONTEXT = 4, 16, 24, 48
RES = (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("norm2", "out_layers.0"),
       ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"))


def joined(parts: list[Tensor], head: int) -> Tensor:
    """The inverse of the split: rows of head h are part 0, part 1, …, as QKVAttention's reshape and split read them."""
    rows = []
    for first in range(0, len(parts[0]), head):
        rows += [part[first : first + head] for part in parts]
    return torch.cat(rows)


class Back:
    """Renames a network in diffusers' layout to the original's names, in the order of UNetModel.__init__."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        self.left, self.prefix, self.out = dict(tensors), prefix, {}

    def put(self, new: str, old: str, needed: bool = True) -> None:
        for kind in ("weight", "bias"):
            if needed or f"{new}.{kind}" in self.left:
                self.out[f"{self.prefix}.{old}.{kind}"] = self.left.pop(f"{new}.{kind}")

    def res(self, new: str, old: str) -> None:
        for theirs, original in RES:
            self.put(f"{new}.{theirs}", f"{old}.{original}", needed=original != "skip_connection")

    def join(self, new: list[str], old: str, head: int, conv: bool) -> None:
        for kind in ("weight", "bias"):
            value = joined([self.left.pop(f"{name}.{kind}") for name in new], head)
            self.out[f"{self.prefix}.{old}.{kind}"] = value[:, :, None] if conv and kind == "weight" else value

    def attention(self, new: str, old: str) -> None:
        self.put(f"{new}.group_norm", f"{old}.norm")
        self.join([f"{new}.to_{letter}" for letter in "qkv"], f"{old}.qkv", DECODER_HEAD, conv=True)
        self.join([f"{new}.add_{letter}_proj" for letter in "kv"], f"{old}.encoder_kv", DECODER_HEAD, conv=True)
        self.join([f"{new}.to_out.0"], f"{old}.proj_out", DECODER_HEAD, conv=True)

    def unet(self, attends: list[bool], blocks: int) -> None:
        for new, old in (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
                         ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2")):
            self.put(new, old)
        place, levels = 0, len(attends)
        for level in range(levels):
            for block in range(blocks):
                place += 1
                self.res(f"down_blocks.{level}.resnets.{block}", f"input_blocks.{place}.0")
                if attends[level]:
                    self.attention(f"down_blocks.{level}.attentions.{block}", f"input_blocks.{place}.1")
            if level != levels - 1:
                place += 1
                self.res(f"down_blocks.{level}.downsamplers.0", f"input_blocks.{place}.0")
        self.res("mid_block.resnets.0", "middle_block.0")
        if any(attends):
            self.attention("mid_block.attentions.0", "middle_block.1")
        self.res("mid_block.resnets.1", f"middle_block.{1 + any(attends)}")
        place = -1
        for level in reversed(range(levels)):
            at = levels - 1 - level
            for block in range(blocks + 1):
                place += 1
                self.res(f"up_blocks.{at}.resnets.{block}", f"output_blocks.{place}.0")
                if attends[level]:
                    self.attention(f"up_blocks.{at}.attentions.{block}", f"output_blocks.{place}.1")
                if level and block == blocks:
                    self.res(f"up_blocks.{at}.upsamplers.0", f"output_blocks.{place}.{1 + attends[level]}")

    def done(self) -> Tensors:
        assert not self.left, list(self.left)
        return self.out


def prior_back(tensors: Tensors, layers: int) -> tuple[Tensors, list[Tensor]]:
    back = Back(tensors, "model")
    statistics = [back.left.pop(name)[0] for name in ("clip_mean", "clip_std")]
    back.out["model.positional_embedding"] = back.left.pop("positional_embedding")
    back.out["model.prd_emb"] = back.left.pop("prd_embedding")
    for new, old in (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
                     ("proj_in", "clip_img_proj"), ("embedding_proj", "text_emb_proj"), ("norm_out", "final_ln"),
                     ("encoder_hidden_states_proj", "text_enc_proj"), ("proj_to_clip_embeddings", "out_proj")):
        back.put(new, old)
    for layer in range(layers):
        new, old = f"transformer_blocks.{layer}", f"transformer.resblocks.{layer}"
        back.join([f"{new}.attn1.to_{letter}" for letter in "qkv"], f"{old}.attn.c_qkv", HEAD, conv=False)
        for theirs, original in (("attn1.to_out.0", "attn.c_proj"), ("ff.net.0.proj", "mlp.c_fc"), ("ff.net.2", "mlp.c_proj"),
                                 ("norm1", "ln_1"), ("norm3", "ln_2")):
            back.put(f"{new}.{theirs}", f"{old}.{original}")
    return back.done(), statistics


def text_proj_back(tensors: Tensors) -> Tensors:
    back = Back(tensors, "model")
    back.out["model.cf_param"] = back.left.pop("learned_classifier_free_guidance_embeddings")
    for new, old in (("encoder_hidden_states_proj", "text_seq_proj.0"), ("text_encoder_hidden_states_norm", "text_seq_proj.1"),
                     ("clip_extra_context_tokens_proj", "clip_tok_proj"), ("embedding_proj", "text_feat_proj"),
                     ("clip_image_embeddings_project_to_time_embeddings", "clip_emb")):
        back.put(new, old)
    return back.done()


def toy_networks() -> dict[str, nn.Module]:
    torch.manual_seed(7)
    resnet = (["ResnetDownsampleBlock2D"] * 3, ["ResnetUpsampleBlock2D"] * 3)
    sizes = {"block_out_channels": (32, 64, 64), "layers_per_block": 2}
    decoder = UNet2DConditionModel(
        sample_size=64, down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 2),
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 2, "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", in_channels=3, out_channels=6, cross_attention_dim=CONTEXT,
        class_embed_type="identity", attention_head_dim=DECODER_HEAD, resnet_time_scale_shift="scale_shift", **sizes,
    )
    upsamplers = {
        f"super_res_{part}": UNet2DModel(
            sample_size=size, down_block_types=resnet[0], up_block_types=resnet[1], in_channels=6, out_channels=3,
            add_attention=False, **sizes,
        )
        for part, size in (("first", 256), ("last", None))
    }
    prior = PriorTransformer(
        num_attention_heads=8, attention_head_dim=HEAD, num_layers=2, embedding_dim=EMBEDDING, num_embeddings=16
    )
    text_proj = UnCLIPTextProjModel(clip_embeddings_dim=EMBEDDING, time_embed_dim=128, cross_attention_dim=CONTEXT)
    networks = {"prior": prior, "text_proj": text_proj, "decoder": decoder, **upsamplers}
    for network in networks.values():  # a norm's ones and zeros would hide that two are swapped
        for value in network.parameters():
            nn.init.normal_(value)
    return networks


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of toy sizes."""
    folder = tmp_path_factory.mktemp("toys")
    for name, network in toy_networks().items():
        network.save_pretrained(folder / name)
    (folder / "text_encoder").mkdir()
    save_file({"embeddings.weight": torch.randn(8, 4)}, folder / "text_encoder" / "model.safetensors")
    (folder / "text_encoder" / "config.json").write_text("{}")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 0}')
    (folder / "model_index.json").write_text("{}")
    return folder


def weights(model: Path, name: str) -> Tensors:
    stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
    return load_file(model / name / f"{stem}.safetensors")


@pytest.fixture(scope="module")
def originals(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    prior, statistics = prior_back(weights(toys, "prior"), 2)
    torch.save({"state_dict": OrderedDict(prior), "epoch": 1}, folder / "prior-ckpt-step=01.ckpt")
    torch.save((statistics[0], statistics[1]), folder / "ViT-L-14_stats.th")
    decoder = Back(weights(toys, "decoder"), "model")
    decoder.unet([False, True, True], 2)
    torch.save({"state_dict": decoder.done() | text_proj_back(weights(toys, "text_proj"))}, folder / "decoder-ckpt-step=01.ckpt")
    upsampler: Tensors = {}
    for part, name in (("first_steps", "first"), ("last_step", "last")):
        back = Back(weights(toys, f"super_res_{name}"), f"model_{part}")
        back.unet([False] * 3, 2)
        upsampler |= back.done()
    torch.save({"state_dict": upsampler}, folder / "improved-sr-ckpt-step=1.2M.ckpt")
    return folder


HEADS = ("--prior-head", HEAD, "--decoder-head", DECODER_HEAD)
NETWORKS = {"prior": PriorTransformer, "text_proj": UnCLIPTextProjModel, "decoder": UNet2DConditionModel,
            "super_res_first": UNet2DModel, "super_res_last": UNet2DModel}


def test_original_checkpoints_of_karlo(toys: Path, originals: Path, tmp_path: Path) -> None:
    run(originals, tmp_path / "model", "--text-encoder", toys, *HEADS)
    for name, kind in NETWORKS.items():
        same(weights(tmp_path / "model", name), weights(toys, name))
        network = kind.from_pretrained(tmp_path / "model" / name)  # the settings fit the weights
        before = json.loads((toys / name / "config.json").read_text())
        for key, value in json.loads((tmp_path / "model" / name / "config.json").read_text()).items():
            assert key == "_diffusers_version" or before[key] == value, (name, key)
        assert sum(value.numel() for value in network.parameters()) > 0
    same(weights(tmp_path / "model", "text_encoder"), weights(toys, "text_encoder"))
    assert (tmp_path / "model" / "tokenizer" / "vocab.json").read_text() == '{"a": 0}'
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert all((tmp_path / "model" / name).is_dir() for name in index if not name.startswith("_"))


def test_original_checkpoints_that_do_not_fit(toys: Path, originals: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(originals, copy)
    arguments = (copy, out, "--text-encoder", toys, *HEADS)
    assert "--text-encoder names a model directory" in refusal(copy, out)
    assert "does not split into" in refusal(*arguments[:-1], 40)
    decoder = torch.load(originals / "decoder-ckpt-step=01.ckpt", weights_only=True)["state_dict"]
    stranger = decoder | {"model.more.weight": torch.ones(1)}
    torch.save({"state_dict": stranger}, copy / "decoder-ckpt-step=01.ckpt")
    assert "'model.more.weight' is of no known use" in refusal(*arguments)
    torch.save({"state_dict": decoder | {"ema.weight": torch.ones(1)}}, copy / "decoder-ckpt-step=01.ckpt")
    assert "'ema.weight' is of no known use" in refusal(*arguments)
    del decoder["model.middle_block.1.qkv.bias"]
    torch.save({"state_dict": decoder}, copy / "decoder-ckpt-step=01.ckpt")
    assert "has no tensor 'model.middle_block.1.qkv.bias'" in refusal(*arguments)
    (copy / "ViT-L-14_stats.th").unlink()
    assert "has 0 files ViT-L-14_stats.th" in refusal(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


# --- directories ---------------------------------------------------------------------------------------------------


def sharded(folder: Path, tensors: Tensors) -> None:
    names = list(tensors)
    parts = {f"diffusion_pytorch_model-0000{at}-of-00002.bin": names[at - 1 :: 2] for at in (1, 2)}
    for file, members in parts.items():
        torch.save({name: tensors[name] for name in members}, folder / file)
    mapping = {name: file for file, members in parts.items() for name in members}
    (folder / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": mapping}))


def test_a_directory_of_bin_files(toys: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "bin", tmp_path / "out"
    shutil.copytree(toys, source)
    for name in ("prior", "decoder"):
        tensors = weights(source, name)
        (source / name / "diffusion_pytorch_model.safetensors").unlink()
        if name == "prior":
            torch.save(tensors, source / name / "diffusion_pytorch_model.bin")
        else:
            sharded(source / name, tensors)
    torch.save(weights(toys, "text_encoder"), source / "text_encoder" / "pytorch_model.bin")
    (source / "text_encoder" / "model.safetensors").unlink()
    run(source, out)
    for name in ("prior", "decoder", "text_encoder", "super_res_first"):
        same(weights(out, name), weights(toys, name))
    assert (out / "prior" / "config.json").read_bytes() == (toys / "prior" / "config.json").read_bytes()
    assert not list(out.rglob("*.bin*"))


@pytest.mark.parametrize("name", ("../outside.bin", "/etc/passwd", "a/b.bin", "..", "", "missing.bin", 3, None, ["x"]))
def test_an_index_stays_in_its_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "in").mkdir()
    torch.save({"w": torch.ones(1)}, tmp_path / "outside.bin")
    index = tmp_path / "in" / "diffusion_pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(Refused):
        shards(index)


@pytest.mark.parametrize("text", ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100000))
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.index.json").write_text(text)
    with pytest.raises(Refused):
        shards(tmp_path / "x.index.json")


def test_nothing_is_overwritten_or_left_half(toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert "--force replaces it" in refusal(toys, out)
    assert "is no model directory" in refusal(toys, out, "--force")
    assert (out / "mine.txt").read_text() == "keep"
    shutil.rmtree(out)
    run(toys, out)
    (out / "decoder" / "old").touch()
    run(toys, out, "--force", "--dtype", "bf16")
    assert not (out / "decoder" / "old").exists()
    assert weights(out, "decoder")["conv_in.weight"].dtype == torch.bfloat16
    run(out, out, "--force", "--dtype", "f32")  # in its own place
    assert weights(out, "decoder")["conv_in.weight"].dtype == torch.float32
    assert "must not lie within each other" in refusal(toys, toys / "decoder" / "new")
    assert "must not lie within each other" in refusal(out / "decoder" / "diffusion_pytorch_model.safetensors", out, "--force")
    broken = tmp_path / "broken"
    shutil.copytree(toys, broken)
    (broken / "text_proj" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    refusal(broken, tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "out"]


# --- number formats ------------------------------------------------------------------------------------------------


def test_formats_of_a_file(tmp_path: Path) -> None:
    source = some_tensors()
    save_file(source, tmp_path / "a.safetensors")
    for kind, dtype in precision.FLOATS.items():
        run(tmp_path / "a.safetensors", tmp_path / f"{kind}.safetensors", "--dtype", kind)
        expected = {name: value.to(dtype) if value.is_floating_point() else value for name, value in source.items()}
        same(load_file(tmp_path / f"{kind}.safetensors"), expected)


def test_what_f16_cannot_hold(tmp_path: Path) -> None:
    save_file({"small": torch.ones(1), "large": torch.tensor([7e4, -1e30, 1.0])}, tmp_path / "a.safetensors")
    text = refusal(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--dtype", "f16")
    assert "'large' has 2 values that f16 can't hold" in text
    run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--dtype", "f16", "--saturate")
    assert load_file(tmp_path / "b.safetensors")["large"].tolist() == [65504, -65504, 1]
    save_file({"w": torch.tensor([float("inf")])}, tmp_path / "a.safetensors")
    run(tmp_path / "a.safetensors", tmp_path / "c.safetensors", "--dtype", "f16")  # what was infinite stays so
    assert load_file(tmp_path / "c.safetensors")["w"].isinf().all()


def test_int8(tmp_path: Path) -> None:
    torch.manual_seed(3)
    kernel, matrix = torch.randn(32, 16, 3, 3) * torch.logspace(-3, 3, 32)[:, None, None, None], torch.randn(64, 64)
    matrix[5] = 0
    rest = {"a.bias": torch.randn(64), "small.weight": torch.randn(8, 8), "positional": torch.randn(100, 100)}
    save_file({"k.weight": kernel, "m.weight": matrix, **rest}, tmp_path / "a.safetensors")
    run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--dtype", "int8")
    out = load_file(tmp_path / "b.safetensors")
    assert {name for name, value in out.items() if value.dtype == torch.int8} == {"k.weight", "m.weight"}
    for name, value in rest.items():
        assert torch.equal(out[name], value.bfloat16())
    for name, value in (("k.weight", kernel), ("m.weight", matrix)):
        scale = out[f"{name}.scale"]
        assert scale.dtype == torch.float32 and scale.shape == value.shape[:1]
        assert out[name].abs().max() == 127
        step = scale.reshape(-1, *[1] * (value.dim() - 1))
        assert ((out[name] * step - value).abs() <= step * 0.5001).all()  # each is rounded to the nearest
    run(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "--dtype", "f32")  # and back
    back = load_file(tmp_path / "c.safetensors")
    assert torch.equal(back["m.weight"], out["m.weight"] * out["m.weight.scale"][:, None])
    assert "m.weight.scale" not in back


def test_int8_in_parts(toys: Path, tmp_path: Path) -> None:
    """A weight and its scale may lie in two files."""
    run(toys, tmp_path / "int8", "--dtype", "int8")
    shutil.copytree(tmp_path / "int8", tmp_path / "parts")
    folder = tmp_path / "parts" / "decoder"
    tensors = weights(tmp_path / "int8", "decoder")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    sharded(folder, dict(sorted(tensors.items())))
    run(tmp_path / "int8", tmp_path / "a", "--dtype", "bf16")
    run(tmp_path / "parts", tmp_path / "b", "--dtype", "bf16")
    same(weights(tmp_path / "a", "decoder"), weights(tmp_path / "b", "decoder"))


def test_int8_refusals(tmp_path: Path) -> None:
    endless = torch.full((64, 64), float("nan"))
    save_file({"m.weight": endless}, tmp_path / "a.safetensors")
    assert "'m.weight' holds an infinity" in refusal(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--dtype", "int8")
    save_file({"m.weight": torch.zeros(4, 4, dtype=torch.int8)}, tmp_path / "a.safetensors")
    assert "'m.weight' is int8 and has no 'm.weight.scale'" in refusal(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


# --- LoRA ----------------------------------------------------------------------------------------------------------


LAYERS = {"decoder": "mid_block.attentions.0.to_q", "prior": "transformer_blocks.1.ff.net.2"}


def adapter(toys: Path, style: str, alpha: bool, rank: int = 3) -> tuple[Tensors, dict[str, tuple[Tensor, Tensor]]]:
    torch.manual_seed(5)
    tensors, pairs = {}, {}
    for network, prefix in (("decoder", "unet"), ("prior", "prior")):
        layer = LAYERS[network]
        rows, columns = weights(toys, network)[f"{layer}.weight"].shape
        a, b = torch.randn(rank, columns), torch.randn(rows, rank)
        names = {"peft": ("lora_A.weight", "lora_B.weight"), "named": ("lora_A.default.weight", "lora_B.default.weight"),
                 "diffusers": ("lora.down.weight", "lora.up.weight")}[style]
        tensors |= {f"{prefix}.{layer}.{names[0]}": a, f"{prefix}.{layer}.{names[1]}": b}
        if alpha:
            tensors[f"{prefix}.{layer}.alpha"] = torch.tensor(6.0)
        pairs[network] = (a, b)
    return tensors, pairs


@pytest.mark.parametrize("style, alpha", (("peft", True), ("peft", False), ("named", False), ("diffusers", True)))
def test_lora_is_what_peft_computes(toys: Path, tmp_path: Path, style: str, alpha: bool) -> None:
    tensors, pairs = adapter(toys, style, alpha)
    save_file(tensors, tmp_path / "lora.safetensors")
    run(toys, tmp_path / "out", "--lora", tmp_path / "lora.safetensors", "--scale", 0.5)
    for network, layer in LAYERS.items():
        before, after = weights(toys, network), weights(tmp_path / "out", network)
        a, b = pairs[network]
        x = torch.randn(4, a.shape[1])
        scaling = (6.0 if alpha else 3.0) / 3  # peft: lora_alpha / r
        expected = x @ before[f"{layer}.weight"].T + 0.5 * scaling * ((x @ a.T) @ b.T)
        torch.testing.assert_close(x @ after[f"{layer}.weight"].T, expected, rtol=1e-4, atol=1e-4)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {f"{layer}.weight"}
    same(weights(toys, "super_res_first"), weights(tmp_path / "out", "super_res_first"))


def test_lora_keeps_the_number_format(toys: Path, tmp_path: Path) -> None:
    run(toys, tmp_path / "bf16", "--dtype", "bf16")
    tensors, pairs = adapter(toys, "peft", alpha=False)
    save_file(tensors, tmp_path / "lora.safetensors")
    run(tmp_path / "bf16", tmp_path / "out", "--lora", tmp_path / "lora.safetensors")
    name = f"{LAYERS['prior']}.weight"
    a, b = pairs["prior"]
    expected = (weights(toys, "prior")[name].bfloat16().float() + b @ a).bfloat16()
    assert torch.equal(weights(tmp_path / "out", "prior")[name], expected)


@pytest.mark.parametrize(
    "key, shape, said",
    (
        ("lora_unet_mid_block.lora_down.weight", (3, 64), "'lora_unet_mid_block.lora_down.weight' is not understood"),
        ("text_encoder.x.lora_A.weight", (3, 64), "'text_encoder.x.lora_A.weight' is not understood"),
        ("unet.mid_block.attentions.0.to_q.lora_magnitude_vector", (64,), "is not understood"),
        ("unet.mid_block.attentions.0.to_q.lora_A.weight", (3, 64), "has no B (up)"),
        ("unet.mid_block.attentions.0.to_q.alpha", (), "has no A (down)"),
    ),
)
def test_lora_names(toys: Path, tmp_path: Path, key: str, shape: tuple, said: str) -> None:
    save_file({key: torch.ones(shape)}, tmp_path / "lora.safetensors")
    assert said in refusal(toys, tmp_path / "out", "--lora", tmp_path / "lora.safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "layer, a, b, said",
    (
        ("nowhere", (3, 64), (64, 3), "'nowhere' is no layer of the decoder"),
        ("conv_in", (3, 27), (32, 3), "'conv_in' is no linear layer of the decoder"),
        ("mid_block.attentions.0.to_q", (3, 32), (64, 3), "changes [64, 32]; the decoder's is [64, 64]"),
        ("mid_block.attentions.0.to_q", (3, 64), (64, 4), "are no matrices of one rank"),
        ("mid_block.attentions.0.to_q", (3, 8, 8), (64, 3), "are no matrices"),
    ),
)
def test_lora_shapes(toys: Path, tmp_path: Path, layer: str, a: tuple, b: tuple, said: str) -> None:
    tensors = {f"unet.{layer}.lora_A.weight": torch.ones(a), f"unet.{layer}.lora_B.weight": torch.ones(b)}
    save_file(tensors, tmp_path / "lora.safetensors")
    assert said in refusal(toys, tmp_path / "out", "--lora", tmp_path / "lora.safetensors")


def test_options_that_say_nothing(toys: Path, tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    assert "--scale is nothing" in refusal(toys, tmp_path / "out", "--scale", 2)
    assert "--saturate is nothing" in refusal(toys, tmp_path / "out", "--saturate")
    assert "--lora needs a model directory" in refusal(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--lora", "x")
    assert "are for original checkpoints" in refusal(toys, tmp_path / "out", "--prior-head", 4)
    assert "should end in .safetensors" in refusal(tmp_path / "a.safetensors", tmp_path / "b")
    assert "is not there" in refusal(tmp_path / "nothing", tmp_path / "b")
    assert "has neither model_index.json" in refusal(tmp_path, tmp_path / "b")


def test_the_command(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["convert", str(toys), str(tmp_path / "out")])
    command.main()
    assert capsys.readouterr().err.startswith(f"wrote {tmp_path / 'out'}: ")
    with pytest.raises(SystemExit, match="convert: .* exists; --force replaces it"):
        command.main()
