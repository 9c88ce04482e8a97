#!/bin/bash
# All that wants an accelerator, in under 8 minutes: run from the checkout's root, with
# PyTorch in the same Python and, unless it is prepared, CIFAR-10 (TFDS_DATA_DIR).
#
#     bash benchmarks/accelerator.sh results/h100
#
# What comes first matters most: a part that overruns its time is cut off, and the next
# one begins. Each part's output is a file in the directory given.
set -u
out=${1:?directory for the logs}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/card.txt"
fi

part() { # file, seconds, command
  local file=$out/$1 limit=$2 begin=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$file" 2>&1
  echo "$file: exit status $?, $((SECONDS - begin)) s"
}

throughput() { # file, seconds, options
  local file=$1 limit=$2
  shift 2
  part "$file" "$limit" "$python" -m benchmarks.throughput --rounds 3 --seconds 0.4 \
    --peers "vgg_jax,flax,torch,torch.compile,torch.compile graphs" "$@"
}

workdir=$(mktemp -d)
part speedrun.txt 100 "$python" main.py --config=configs/speedrun.py --workdir="$workdir/run"
cp "$workdir/run/result.json" "$out/speedrun.json" 2>/dev/null
throughput train_bfloat16_1024.txt 90 --modes train --dtypes bfloat16 --batches 1024
throughput train_bfloat16_128.txt 90 --modes train --dtypes bfloat16 --batches 128
part time_to_accuracy.txt 90 "$python" -m benchmarks.time_to_accuracy \
  --config=configs/speedrun.py --steps 100 --rounds 3
throughput train_bn_bfloat16_1024.txt 80 --modes train --dtypes bfloat16 --batches 1024 --batch_norm
throughput infer_bfloat16.txt 80 --modes infer --dtypes bfloat16 --batches 1024
throughput train_float32_1024.txt 80 --modes train --dtypes float32 --batches 1024
throughput train_bfloat16_224.txt 90 --modes train --dtypes bfloat16 --batches 64 --sizes 224
part operations.txt 60 env XLA_FLAGS=--xla_gpu_enable_command_buffer= \
  "$python" -m benchmarks.operations --batch 1024
part tests.txt 90 "$python" -m pytest -q -n 8 -p no:cacheprovider tests/nn tests/evaluation
