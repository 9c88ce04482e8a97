"""Injects faults into small runs: is anything lost, wrong or silent afterwards?

    python -m benchmarks.faults
    python -m benchmarks.faults --only=damage,kills --share=0.1

Every fault hits a run of its own, which is then started again by the same command, up
to three times. It must end with the same weights, bit for bit, as a run that nothing
happened to; where a start ends without a result, that must be one clear line. The
families are those of `fault_families.py`. Power cuts and full disks mount file systems
in files, which takes root; without it they are left out, and the table says so.
"""

import argparse
import collections
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks.fault_families import FAMILIES, NEED_ROOT
from benchmarks.fault_runs import OUT, Outcomes, prepared


def main() -> None:
    """Injects the faults, prints the table; fails if anything was bad."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="families: kills,damage")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the faults, 0 ... 1"
    )
    parser.add_argument("--log", type=Path, default=Path("runs/faults.jsonl"))
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(FAMILIES)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text("")
    with prepared() as (place, base, reference):
        outcomes = Outcomes(reference, options.log)
        for name in names:
            if name in NEED_ROOT and os.geteuid():
                print(f"{name}: left out, as it takes root")
                continue
            began = time.monotonic()
            FAMILIES[name](outcomes, place, base, options.share)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(OUT)
    total = sum(outcomes.counts.values(), collections.Counter())
    print(f"{'family':12}" + "".join(f"{kind:>15}" for kind in Outcomes.KINDS))
    for name, count in {**outcomes.counts, "all": total}.items():
        print(f"{name:12}" + "".join(f"{count[kind]:>15}" for kind in Outcomes.KINDS))
    sys.exit(bool(total["bad"]))


if __name__ == "__main__":
    main()
