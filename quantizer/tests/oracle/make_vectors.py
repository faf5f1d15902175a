#!/usr/bin/env python3
"""Writes vectors.json: small problems and what the float64 oracle makes of them.

    python make_vectors.py [FOLDER_OF_rescomp_ref.py]

Without an argument the oracle is looked for in ../shared/reference beside the repository. numpy, and what model_ref.py there imports
(it has the refinement). The same inputs come out on every run; the file changes only where the oracle or this script does.

Inputs are integers, to be divided by 10000 in f64, so that any reader gets the very same numbers: weights m*n row-major, hessian
the lower triangle row by row (it is symmetric), drift n*n row-major. Of every solution there are the codes, a hexadecimal digit
(code + 8) each, row-major, and the scales, m*groups row-major. Of every refinement there are the values, m*n row-major.
"""
import itertools
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ORACLE = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2].parent / "shared" / "reference"
if not (ORACLE / "rescomp_ref.py").is_file():
    sys.exit("no rescomp_ref.py in %s: pass its folder as the argument" % ORACLE)
sys.path.insert(0, str(ORACLE))
import model_ref  # noqa: E402
import rescomp_ref as oracle  # noqa: E402

UNIT = 10000

# name, alpha1, alpha2, start, strength, ridge
CONFIGURATIONS = [
    ("gptq", 0.0, 0.0, "unchanged", 0.0, 0.0),
    ("gptaq", 0.25, 0.0, "unchanged", 0.0, 0.0),
    ("gptaq-1", 1.0, 0.0, "unchanged", 0.0, 0.0),
    ("rescomp", 0.25, 0.25, "unchanged", 0.0, 0.0),
    ("rescomp-1", 1.0, 1.0, "unchanged", 0.0, 0.0),
    ("compensation-only", 0.0, 0.25, "unchanged", 0.0, 0.0),
    ("exact", 0.0, 0.0, "exact", 1.0, 1.0),
    ("exact-half", 0.0, 0.0, "exact", 0.5, 0.1),
    ("exact-rescomp", 0.25, 0.25, "exact", 0.5, 1.0),
    ("anchored", 0.0, 0.0, "anchored", 1.0, 0.0),
]
VARIANTS = {"paper": "paper", "original": "org", "all-weights": "allw"}

# m, n, kind of inputs, kind of drift, (bits, group, block, activation order, static groups, damping)
PROBLEMS = [
    (12, 48, "powerlaw", "prev", [(2, 16, 16, True, True, 0.01), (3, 16, 32, False, False, 0.01), (4, 32, 16, False, False, 0.1)]),
    (16, 64, "outlier", "prev", [(2, 64, 32, True, True, 0.01), (3, 16, 32, True, True, 0.01), (3, 32, 128, False, True, 0.01)]),
    (8, 160, "ar", "noise", [(3, 32, 128, True, True, 0.01), (2, 64, 32, False, False, 0.01), (4, 0, 128, False, False, 0.01)]),
    (10, 72, "powerlaw", "noise", [(4, 16, 16, True, True, 0.01), (2, 0, 32, True, False, 0.05), (3, 64, 32, False, True, 0.01), (2, 32, 128, True, True, 0.01)]),
]

# problem, bits, group, sweeps; from the exact start with strength 1 and ridge 1, damping 0.01, activation order, static groups
REFINEMENTS = [(0, 2, 16, 1), (0, 3, 16, 3), (3, 4, 24, 6)]


class Recorder:
    """Keeps the scales that the oracle finds, in the order of the groups."""

    def __init__(self):
        self.find = oracle.find_params

    def run(self, f):
        found = []

        def find_params(*args, **kw):
            result = self.find(*args, **kw)
            found.append(result[0])
            return result

        oracle.find_params = find_params
        try:
            values = f()
        finally:
            oracle.find_params = self.find
        return values, np.stack(found, 1)


def integers(a):
    return np.rint(a * UNIT).astype(np.int64)


def problem(seed, m, n, kind, drift):
    w, x, xf, _, _ = oracle.make_problem(seed, n=n, m=m, k=8 * n, kt=8, kind=kind, drift=drift, bits=3, group=32)
    h = x @ x.T / x.shape[1]
    d = (xf - x) @ x.T / x.shape[1]
    return integers(w), integers((h + h.T) / 2), integers(d)


def encode(values, scales, group, bits):
    step = np.repeat(scales, group, 1)[:, : values.shape[1]]
    codes = np.rint(values / step).astype(int)
    assert np.array_equal(codes * step, values)
    assert codes.min() >= -(2 ** (bits - 1)) and codes.max() < 2 ** (bits - 1)
    return {"codes": "".join("%x" % (c + 8) for c in codes.flat), "scales": [float(s) for s in scales.flat]}


def refinement(w, h, d, bits, group, sweeps):
    q = oracle.solve(w, h, d, bits=bits, group=group, sym=True, mse=True, damp=0.01, actorder=True, static_groups=True, qep=1.0, qep_damp=1.0)
    target = w + w @ d @ oracle.factors(h, 1.0)[1]
    values = model_ref.refine(target, q, oracle.factors(h, 0.01)[0], bits, group, sweeps)
    return {"bits": bits, "group": group, "sweeps": sweeps, "values": [float("%.10g" % v) for v in values.flat]}


def main():
    recorder, problems = Recorder(), []
    for seed, (m, n, kind, drift, settings) in enumerate(PROBLEMS):
        weights, hessian, moments = problem(seed, m, n, kind, drift)
        w, h, d = weights / UNIT, hessian / UNIT, moments / UNIT
        cases = []
        for bits, group, block, order, static, damping in settings:
            group_elems = group or n
            base = {"bits": bits, "group": group, "block": block, "activation_order": order, "static_groups": static,
                    "damping": damping, "clip_search": True}
            values, scales = recorder.run(lambda: oracle.rtn(w, bits, group_elems, True, True))
            cases.append(dict(base, name="rtn", **encode(values, scales, group_elems, bits)))
            for (name, a1, a2, start, strength, ridge), (variant, code) in itertools.product(CONFIGURATIONS, VARIANTS.items()):
                if not (a1 or a2) and variant != "paper":
                    continue  # the variants differ in the alpha terms only
                for clip in (True, False) if name in ("gptq", "rescomp") else (True,):
                    values, scales = recorder.run(lambda: oracle.solve(
                        w, h, d, bits=bits, group=group_elems, sym=True, mse=clip, damp=damping, actorder=order, static_groups=static,
                        a1=a1, a2=a2, variant=code, block=block, qep=strength if start == "exact" else 0.0,
                        qep_damp=ridge, anchor=strength if start == "anchored" else 0.0))
                    cases.append(dict(base, name=name, clip_search=clip, alpha1=a1, alpha2=a2, variant=variant, start=start,
                                      strength=strength, ridge=ridge, **encode(values, scales, group_elems, bits)))
        lower = [int(hessian[i, j]) for i in range(n) for j in range(i + 1)]
        problems.append({"m": m, "n": n, "inputs": kind, "drift_kind": drift, "weights": weights.ravel().tolist(),
                         "hessian": lower, "drift": moments.ravel().tolist(), "cases": cases,
                         "refinements": [refinement(w, h, d, *rest) for at, *rest in REFINEMENTS if at == seed]})
    # One case a line, so that a change of the oracle shows as a readable difference.
    with open(HERE / "vectors.json", "w") as out:
        out.write('{"unit": %d, "problems": [' % UNIT)
        for i, p in enumerate(problems):
            cases = p.pop("cases")
            out.write("%s\n%s,\n\"cases\": [\n" % ("," if i else "", json.dumps(p, separators=(",", ":"))[:-1]))
            out.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}")
        out.write("\n]}\n")


if __name__ == "__main__":
    main()
