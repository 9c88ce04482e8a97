"""Pictures per second decoded, scaled and cropped, beside PyTorch and tf.data.

    python -m benchmarks.pictures_speed --folder=photos

Every program reads the same JPEG files on the same cores: it scales each picture so
that its smaller side is uniform in [256, 512], cuts 224x224 out at random and hands
batches of uint8 over; nothing is trained. They take turns. Each is a new epoch, so that
nothing is decoded ahead while another one runs; the start of worker processes is part
of it. PyTorch is torchvision's `ImageFolder` with `Resize`, `RandomCrop` and a
`DataLoader`; tf.data decodes the crop alone (`decode_and_crop_jpeg`) and scales that.
They need the environments of `benchmarks/throughput.py`, torchvision and Pillow in
PyTorch's; who has none is left out.

`--make=N` writes N crops of real photographs, those of scikit-image and scikit-learn,
into the folder first, of 500 or, every fifth, of 1600 pixels.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.peer import Peer, Process
from vgg_jax import machine

OURS = "threads"


def _workers(program: str, environment: str, count: int) -> Peer:
    return Peer(program, environment, (("workers", count),))


PEERS = {
    OURS: _workers("pictures_ours.py", "", 0),
    "1 process": _workers("pictures_ours.py", "", 1),
    "2 processes": _workers("pictures_ours.py", "", 2),
    "torch, in line": _workers("pictures_torch.py", "torch", 0),
    "torch, 1 worker": _workers("pictures_torch.py", "torch", 1),
    "torch, 2 workers": _workers("pictures_torch.py", "torch", 2),
    "torch, 4 workers": _workers("pictures_torch.py", "torch", 4),
    "tf.data": Peer("pictures_tensorflow.py", "keras"),
}
_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "motorcycle_left")
_SIDES = (500, 500, 500, 500, 1600)  # pixels of the larger side, in turn


def photographs() -> list[PIL.Image.Image]:
    """Returns the photographs that scikit-image and scikit-learn come with."""
    import skimage.data
    import sklearn.datasets

    here = Path(skimage.data.__file__).parent
    files = [file for name in _PHOTOGRAPHS for file in here.glob(f"{name}.*")]
    images = sklearn.datasets.load_sample_images().images
    return [
        *(PIL.Image.open(file).convert("RGB") for file in files),
        *map(PIL.Image.fromarray, images),
    ]


def make(folder: Path, count: int) -> None:
    """Writes crops of photographs, a class per photograph."""
    random = np.random.default_rng(0)
    known = photographs()
    for i in range(count):
        picture = known[i % len(known)]
        sides = [int(side * random.uniform(0.5, 1)) for side in picture.size]
        left, top = (
            int(random.integers(whole - side + 1))
            for whole, side in zip(picture.size, sides, strict=True)
        )
        crop = picture.crop((left, top, left + sides[0], top + sides[1]))
        factor = _SIDES[i % len(_SIDES)] / max(sides)
        crop = crop.resize([round(side * factor) for side in sides])
        place = folder / f"{i % len(known)}"
        place.mkdir(parents=True, exist_ok=True)
        crop.save(place / f"{i:05}.jpg", quality=92)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="of <class>/<picture>.jpg")
    parser.add_argument("--make", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=24, help="per turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.make:
        make(Path(options.folder), options.make)
    print(machine.environment(), flush=True)
    job = {"folder": options.folder, "batch": options.batch, "size": 224}
    job["scales"] = (256, 512)
    running = {}
    for name, peer in PEERS.items():
        try:
            running[name] = Process(peer, job)
        except (OSError, RuntimeError) as error:
            print(f"  {name}: left out ({error})", flush=True)
    for _ in range(options.rounds):
        for process in running.values():
            process.seconds.append(process.ask(options.batches))
    for name, process in running.items():
        process.close()
        rate = options.batch / statistics.median(process.seconds)
        pairs = zip(process.seconds, running[OURS].seconds, strict=True)
        ratios = sorted(other / ours for other, ours in pairs)
        print(
            f"  {name:18} {rate:6,.0f} pictures/s   {OURS} are "
            f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
