"""Data on which R and Corelab are compared: `python make_data.py` writes the two tables again."""

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def main() -> None:
    """Write readings.csv (40 targets, 4 readers, gaps) and grades.csv (60 targets, 3 readers)."""
    rng = np.random.default_rng(20240464)
    truth = rng.gamma(3.0, 10.0, (40, 1))
    table = truth + np.array([0.0, 1.5, -2.0, 0.5]) + rng.normal(0, 4.0, (40, 4))
    frame = pd.DataFrame(np.round(np.abs(table), 3), columns=["r1", "r2", "r3", "r4"])
    frame["g1"], frame["g2"], frame["g3"] = frame["r1"], frame["r2"], frame["r3"]
    gaps = rng.random((40, 3)) < 0.25
    frame[["g1", "g2", "g3"]] = frame[["g1", "g2", "g3"]].mask(gaps)
    frame.to_csv(HERE / "readings.csv", index=False)
    latent = rng.normal(0, 1, (60, 1)) + rng.normal(0, 0.5, (60, 3))
    grades = np.searchsorted([-1.2, -0.4, 0.4, 1.2], latent)
    pd.DataFrame(grades, columns=["a", "b", "c"]).to_csv(HERE / "grades.csv", index=False)


if __name__ == "__main__":
    main()
