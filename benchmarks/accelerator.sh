#!/bin/bash
# What wants an accelerator, in under 8 minutes. Run it from the checkout's root, with
# PyTorch in the same Python; where TFDS_DATA_DIR holds CIFAR-10 nothing is downloaded.
#
#     bash benchmarks/accelerator.sh results/h100                 # the parts below
#     bash benchmarks/accelerator.sh results/h100 infer float32   # or some of them
#
# Each part's output is a file in the directory given. A part that overruns its time is
# cut off, and the next one begins.
set -u
out=${1:?directory for the logs}
shift
parts=${*:-speedrun restart train accuracy tests equality}
python=${PYTHON:-python3}
mkdir -p "$out"
# Several processes share the card.
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_MEM_FRACTION=0.25 TF_CPP_MIN_LOG_LEVEL=2

part() { # seconds, command
  local begin=$SECONDS
  timeout "$@" >"$out/$name.txt" 2>&1
  echo "$out/$name.txt: exit status $?, $((SECONDS - begin)) s"
}

throughput() { # options
  part 150 "$python" -m benchmarks.throughput --rounds 3 --seconds 0.4 \
    --peers "vgg_jax,flax,torch,torch.compile,torch.compile graphs" "$@"
}

run() { # name
  local name=$1
  case $name in
    speedrun)
      local workdir
      workdir=$(mktemp -d)
      part 100 "$python" main.py --config=configs/speedrun.py --workdir="$workdir/run"
      cp "$workdir/run/result.json" "$out/speedrun.json"
      ;;
    restart) # the second start takes its programs from JAX's cache
      local twice
      twice=$(mktemp -d)
      part 60 bash -c "for i in 1 2; do $python main.py --config=configs/quickstart.py \
        --config.epochs=1 --workdir=$twice/\$i; done"
      ;;
    train) throughput --modes train --dtypes bfloat16 --batches 1024 ;;
    accuracy)
      part 120 "$python" -m benchmarks.time_to_accuracy --config=configs/speedrun.py \
        --steps 100 --rounds 3
      ;;
    batch_norm) throughput --modes train --dtypes bfloat16 --batches 1024 --batch_norm ;;
    tests)
      # Sums as exact as the tests expect, and no error for what another JAX warns of.
      JAX_DEFAULT_MATMUL_PRECISION=highest XLA_PYTHON_CLIENT_MEM_FRACTION=0.15 \
        part 150 "$python" -m pytest -q -n 4 -p no:cacheprovider -W default -rfE \
        tests/nn tests/evaluation
      ;;
    equality) part 60 "$python" -m benchmarks.equality ;;
    small) throughput --modes train --dtypes bfloat16 --batches 128 ;;
    infer) throughput --modes infer --dtypes bfloat16 --batches 1024 ;;
    float32) throughput --modes train --dtypes float32 --batches 1024 ;;
    large) throughput --modes train --dtypes bfloat16 --batches 64 --sizes 224 ;;
    operations)
      part 60 env XLA_FLAGS=--xla_gpu_enable_command_buffer= \
        "$python" -m benchmarks.operations --batch 1024
      ;;
    *) echo "no part is called $name" ;;
  esac
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/card.txt"
for name in $parts; do run "$name"; done
