#!/bin/bash
# What wants an accelerator, in under 8 minutes. Run it from the checkout's root, with
# PyTorch in the same Python; where TFDS_DATA_DIR holds CIFAR-10 nothing is downloaded.
#
#     bash benchmarks/accelerator.sh results/h100                 # the parts below
#     bash benchmarks/accelerator.sh results/h100 restart tests   # or some of them
#
# Each part's output is a file in the directory given. A part that overruns its time is
# cut off, and the next one begins.
set -u
out=${1:?directory for the logs}
shift
parts=${*:-train infer large speedrun equality operations}
python=${PYTHON:-python3}
mkdir -p "$out"
# Several processes share the card: each takes what it needs.
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2

part() { # seconds, command
  local begin=$SECONDS
  timeout "$@" >"$out/$name.txt" 2>&1
  echo "$out/$name.txt: exit status $?, $((SECONDS - begin)) s"
}

throughput() { # seconds, options
  local limit=$1
  shift
  part "$limit" "$python" -m benchmarks.throughput --together --rounds 3 --seconds 0.4 \
    --peers "vgg_jax,flax,torch,torch.compile,torch.compile graphs" "$@"
}

run() { # name
  local name=$1
  case $name in
    train) throughput 150 --modes train --dtypes bfloat16 --batches 128,2048 ;;
    infer) throughput 100 --modes infer --dtypes bfloat16 --batches 128,2048 ;;
    large) throughput 150 --modes train,infer --dtypes bfloat16 --sizes 224 ;;
    batch_norm) throughput 100 --modes train --dtypes bfloat16 --batches 1024 --batch_norm ;;
    float32) throughput 100 --modes train --dtypes float32 --batches 1024 ;;
    speedrun)
      local workdir
      workdir=$(mktemp -d)
      part 100 "$python" main.py --config=configs/speedrun.py --workdir="$workdir/run"
      cp "$workdir/run/result.json" "$out/speedrun.json"
      ;;
    accuracy)
      part 220 "$python" -m benchmarks.time_to_accuracy --config=configs/speedrun.py \
        --steps 100 --rounds 3 --turn 5
      ;;
    restart) # the second start takes its programs from JAX's cache
      local twice
      twice=$(mktemp -d)
      part 60 bash -c "for i in 1 2; do $python main.py --config=configs/quickstart.py \
        --config.epochs=1 --workdir=$twice/\$i; done"
      ;;
    equality) part 60 "$python" -m benchmarks.equality ;;
    operations)
      part 60 env XLA_FLAGS=--xla_gpu_enable_command_buffer= \
        "$python" -m benchmarks.operations --batch 1024
      ;;
    tests)
      # Sums as exact as the tests expect, and no error for what another JAX warns of.
      JAX_DEFAULT_MATMUL_PRECISION=highest \
        part 300 "$python" -m pytest -q -n 4 -p no:cacheprovider -W default -rfE \
        tests/nn tests/evaluation
      ;;
    *) echo "no part is called $name" ;;
  esac
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/card.txt"
for name in $parts; do run "$name"; done
