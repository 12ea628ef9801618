#!/usr/bin/env bash
# Training to its end in a few steps, and fine-tuning what came out on a person's pictures; both models then draw
# through the workers. On a cluster of its own, which has a folder of models of its own.
source "$(dirname "$0")/lib.sh"
OWN_CLUSTER=1
UNCLIP_HOME=$WORK/home UNCLIP_MODELS=$WORK/models
export UNCLIP_HOME UNCLIP_MODELS
mkdir "$UNCLIP_MODELS"
ln -s "$ROOT/models/emoji" "$UNCLIP_MODELS/emoji"

# trained NAME ARGUMENT...: a model of that name, checked
trained() {
  local name=$1
  shift
  "$ROOT/training/train" --device cpu --smoke --folder "$WORK/$name" "$@" 2>"$WORK/$name.log" ||
    fail "training $name: $(tail -n 30 "$WORK/$name.log")"
  ln -s "$WORK/$name/model" "$UNCLIP_MODELS/$name"
  "$UNCLIP_BIN/unclip" model check --load "$UNCLIP_MODELS/$name" >"$WORK/check" || fail "$name: $(cat "$WORK/check")"
}

trained fresh --preset tiny
"$UNCLIP_BIN/unclip" generate "a red heart" --model "$UNCLIP_MODELS/fresh" --size 64 --n 4 --seed 1 -q -o "$WORK/own" >/dev/null
for at in 0 1 2 3; do echo "picture $at of mine" >"$WORK/own/$at.txt"; done
trained tuned --from "$WORK/fresh/model" --data "$WORK/own" --rehearse 0
for part in decoder prior text_encoder; do
  cmp -s "$WORK"/{fresh,tuned}/model/$part/config.json || fail "fine-tuning changed the sizes of $part"
done
same=0
cmp -s "$WORK"/{fresh,tuned}/model/decoder/diffusion_pytorch_model.safetensors || same=$?
expect "fine-tuning changed the decoder: cmp's status" "$same" 1

use_cluster
for name in fresh tuned; do
  job "$RUN-$name" "a picture of mine" "\"model\": \"$name\", \"size\": 1024, \"seed\": 5"
  await_state "$RUN-$name" succeeded 240
  picture=$(path_of "$(one_result "$RUN-$name" | jq -r '.images[0].uri')")
  expect "size of the picture" "$(png_size "$picture")" 1024x1024
  "$UNCLIP_BIN/unclip" generate "a picture of mine" --model "$UNCLIP_MODELS/$name" --seed 5 --size 1024 \
    --steps-prior 2 --steps-decoder 2 --steps-upsampler-1 2 --steps-upsampler-2 2 -q -o "$WORK/alone/$name" >/dev/null
  expect "the picture of $name" "$(pixels_of "$picture")" "$(pixels_of "$WORK/alone/$name/0.png")"
done
